# debian.sh, read by the scripts beside it: with $out (a folder, which is emptied) and $suite (a Debian suite) set, `unpack`
# fetches packages of that suite and what they depend on, beside those of this machine and without installing anything.
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
[ -n "$archive" ] || { echo "$0: no Debian archive among the sources of apt" >&2; exit 1; }
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
