#!/bin/bash
# releases.sh OUT SUITE: BGP speakers of another Debian suite (`trixie`, `sid`) in OUT/SUITE/bin, beside those of this
# machine and without installing anything. Each runs in a root of its own with the C library it came with, and sees
# this machine's /proc, /sys, /dev, /etc, /run and /tmp. Does nothing when they are there (the stamp).
set -euo pipefail
suite=$2 out=$(realpath -m "$1")/$2
stamp=$(sha256sum "$0" | cut -c1-16)
[ "$(cat "$out/.stamp" 2>/dev/null || true)" = "$stamp" ] && { echo "up to date: $out"; exit 0; }
rm -rf "$out"
mkdir -p "$out/apt/lists/partial" "$out/apt/cache/archives/partial" "$out/bin"

# This machine's archive, which every suite shares: apt knows it once its lists are there, else the sources name it.
archive() {
  apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && $3 == "Debian" { print $1 }'
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' | grep -E '/debian/?$' || true
  sed -nE 's/^URIs: *([^ ]+).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -E '/debian/?$' || true
}
mapfile -t archives < <(archive)
archive=${archives[0]:-}
[ -n "$archive" ] || { echo "releases.sh: no Debian archive among the sources of apt" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $archive $suite main" > "$out/apt/sources.list"
: > "$out/apt/status"
apt() {
  apt-get -q -o "Dir::State::Lists=$out/apt/lists" -o "Dir::State::status=$out/apt/status" -o "Dir::Cache=$out/apt/cache" \
    -o "Dir::Etc::SourceList=$out/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Debug::NoLocking=true \
    -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@" > "$out/apt.log" 2>&1 || { tail -20 "$out/apt.log" >&2; exit 1; }
}
apt update

# unpack ROOT PACKAGE...
unpack() {
  local root=$out/$1 package dir
  shift
  rm -f "$out"/apt/cache/archives/*.deb
  apt -y --no-install-recommends --download-only install "$@"
  mkdir -p "$root"
  for package in "$out"/apt/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
  # A root without base-files: what they are links to.
  for dir in bin sbin lib lib64; do [ -e "$root/$dir" ] || ln -s "usr/$dir" "$root/$dir"; done
  for dir in proc sys dev etc run tmp var/lib/frr; do mkdir -p "$root/$dir"; done
  rm -rf "${root:?}/var/run"
  ln -s /run "$root/var/run"
}

# wrap ROOT NAME PROGRAM: the same process to the end, so signals and the process id are the program's.
wrap() {
  local root=$out/$1
  [ -x "$root$3" ] || { echo "releases.sh: $suite has no $3" >&2; exit 1; }
  cat > "$out/bin/$2" <<END
#!/bin/sh
exec unshare --mount --propagation private sh -c 'for d in proc sys dev etc run tmp; do mount --rbind /\$d $root/\$d || exit 127; done; exec chroot $root "\$@"' sh $3 "\$@"
END
  chmod 755 "$out/bin/$2"
}

unpack root frr gobgpd openbgpd bird2 libc6
unpack root3 bird3 libc6
for name in zebra bgpd bfdd; do wrap root "$name" "/usr/lib/frr/$name"; done
[ ! -x "$out/root/usr/lib/frr/mgmtd" ] || wrap root mgmtd /usr/lib/frr/mgmtd
wrap root vtysh /usr/bin/vtysh
wrap root gobgpd /usr/bin/gobgpd
wrap root gobgp /usr/bin/gobgp
wrap root openbgpd /usr/sbin/bgpd
wrap root bgpctl /usr/sbin/bgpctl
for name in bird birdc; do wrap root "$name" "/usr/sbin/$name"; wrap root3 "${name/bird/bird3}" "/usr/sbin/$name"; done
rm -rf "$out/apt"
echo "$stamp" > "$out/.stamp"
echo "$suite: $(ls "$out/bin" | tr '\n' ' ')"
