#!/bin/bash
# build.sh OUT: build promtool, which tests the alerts (tests/deploy/alerts.rs), into OUT. Does nothing when OUT has it
# already. Without service discovery, which tests of rules do not need.
set -euo pipefail
OUT=$(realpath -m "$1"); cd "$(dirname "$(realpath "$0")")"; mkdir -p "$OUT"
V=$(go list -m -f '{{.Version}}' github.com/prometheus/prometheus)
[ -x "$OUT/promtool" ] && [ "$(cat "$OUT/.promtool" 2>/dev/null)" = "$V" ] && { echo "up to date: promtool $V"; exit 0; }
CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -p=$(nproc)" GOTOOLCHAIN=local \
  go build -ldflags="-s -w" -tags remove_all_sd -o "$OUT/" github.com/prometheus/prometheus/cmd/promtool
echo "$V" > "$OUT/.promtool"
