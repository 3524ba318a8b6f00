#!/bin/bash
# firewalld.sh OUT: firewalld of Debian trixie, with the Python and the message bus it needs, in OUT/firewalld/root. `start`
# there runs in a mount namespace of its own. Does nothing when they are there (the stamp).
set -euo pipefail
out=$(realpath -m "$1")/firewalld suite=trixie
cd "$(dirname "$(realpath "$0")")"
stamp=$(cat firewalld.sh debian.sh | sha256sum | cut -c1-16)
[ "$(cat "$out/.stamp" 2>/dev/null || true)" = "$stamp" ] && { echo "up to date: $out"; exit 0; }
. ./debian.sh
unpack root firewalld dbus-daemon python3-minimal kmod libc6
[ -x "$out/root/usr/sbin/firewalld" ] || { echo "firewalld.sh: $suite has no firewalld" >&2; exit 1; }
echo 'root:x:0:0:root:/root:/bin/sh' > "$out/root/etc/passwd"
echo 'root:x:0:' > "$out/root/etc/group"
cat > "$out/bus.conf" <<'END'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_type="method_call"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
END
# A bus of its own: nothing of this machine's /run and /etc is seen. The bus is the process that remains.
cat > "$out/start" <<'END'
#!/bin/sh
# start SETTINGS: the message bus, with the folder SETTINGS as /etc/firewalld.
set -e
here=$(dirname "$(realpath "$0")") root=$(dirname "$(realpath "$0")")/root
for d in proc sys dev; do mount --rbind /$d "$root/$d"; done
for d in run tmp; do mount -t tmpfs tmpfs "$root/$d"; done
mkdir "$root/run/dbus"
cp -r "$root/etc/firewalld/." "$1"
mount --bind "$1" "$root/etc/firewalld"
cp "$here/bus.conf" "$root/run/"
exec chroot "$root" /usr/bin/dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile
END
chmod 755 "$out/start"
rm -rf "$out/apt"
echo "$stamp" > "$out/.stamp"
echo "firewalld: $(ls "$out")"
