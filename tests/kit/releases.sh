#!/bin/bash
# releases.sh OUT SUITE: BGP speakers of another Debian suite (`trixie`, `sid`) in OUT/SUITE/bin, beside those of this
# machine and without installing anything. Each runs in a root of its own with the C library it came with, and sees
# this machine's /proc, /sys, /dev, /etc, /run and /tmp. Does nothing when they are there (the stamp).
set -euo pipefail
suite=$2 out=$(realpath -m "$1")/$2
cd "$(dirname "$(realpath "$0")")"
stamp=$(cat releases.sh debian.sh | sha256sum | cut -c1-16)
[ "$(cat "$out/.stamp" 2>/dev/null || true)" = "$stamp" ] && { echo "up to date: $out"; exit 0; }
. ./debian.sh

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
