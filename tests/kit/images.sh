#!/bin/bash
# images.sh BIN: the images that pods of the tests are made from, BIN/images/*.tar, out of what build.sh built and of Debian's
# programs, under the very names that Kubernetes' own suite asks for, so that nothing is ever pulled.
set -euo pipefail
BIN=$(realpath "$1"); cd "$(dirname "$(realpath "$0")")"; O=$BIN/images; mkdir -p "$O"
src=$(cd kube && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
tag() { sed -nE "s/.*configs\[$1\] *= Config\{[^,]*, \"[^\"]*\", \"([^\"]*)\"\}.*/\1/p" "$src/test/utils/image/manifest.go"; }
E=registry.k8s.io/e2e-test-images
./mkimage.py "$O/pause.tar" --name localhost/lab/pause:1 --name "registry.k8s.io/pause:$(tag Pause)" --name "$E/busybox:$(tag BusyBox)" \
  --entrypoint /bin/sh --cmd "-c,trap : TERM INT; sleep 2147483647 & wait"
# /bin/sh is dash: busybox' sh prefers its own nc and friends to those in PATH.
./mkimage.py "$O/agnhost.tar" --name "$E/agnhost:$(tag Agnhost)" --name "$E/glibc-dns-testing:$(tag GlibcDnsTesting)" --name localhost/lab/agnhost:1 \
  --file "$BIN/agnhost=/agnhost" --link /agnhost-2=agnhost --dir /uploads --dir /var/registry \
  --file "$src/test/images/agnhost/porter/localhost.crt=/localhost.crt" --file "$src/test/images/agnhost/porter/localhost.key=/localhost.key" \
  --with dash --link /bin/sh=dash --with curl --with nc --with dig --with bash --with ss --with ipcs --with getent \
  --user user-defined-in-image:1000:group-defined-in-image:50000 --entrypoint /agnhost --cmd pause
# The suite only needs an "nginx" that runs and answers on port 80.
./mkimage.py "$O/nginx.tar" --name "$E/nginx:$(tag Nginx)" --name "$E/nginx:$(tag NginxNew)" --entrypoint /bin/httpd --cmd=-f,-p,80,-h,/etc
