#!/usr/bin/env bash
# guard.sh OWNER FOLDER: removes what the test process OWNER leaves behind, however it ends (SIGKILL included).
#
# Standard input is a pipe that only OWNER holds; its end is the end of OWNER. Everything that a test makes has the tag
# rt<OWNER>x in its name: namespaces, cgroups, folders below FOLDER, and processes by their arguments or environment.
set -u
shopt -s nullglob
# Ctrl-C and a signal to the whole run end OWNER, not its guard.
trap '' HUP INT TERM
owner=$1 folder=$2

cgroups() { find /sys/fs/cgroup -depth -type d \( -name "$1*" -o -path "*/$1*/*" \) 2>/dev/null; }

# Processes of tag $1: in its namespaces, in its cgroups, with the tag in an argument or in ROUTELET_TEST. The guard of
# a lab (src/lab/io/cleanup_guard.rs) is left to do its work.
processes() {
  local name file found=
  for name in /run/netns/"$1"*; do found+=" $(ip netns pids "${name##*/}" 2>/dev/null)"; done
  while read -r name; do found+=" $(cat "$name/cgroup.procs" 2>/dev/null)"; done < <(cgroups "$1")
  for file in $(grep -lazE "(^|[^[:alnum:]])$1[0-9]" /proc/[0-9]*/cmdline 2>/dev/null
    grep -laz "^ROUTELET_TEST=$1" /proc/[0-9]*/environ 2>/dev/null); do
    found+=" $(basename "$(dirname "$file")")"
  done
  for name in $found; do
    [ "$name" = $$ ] || grep -qaz '^ROUTELET_LAB_GUARD=' "/proc/$name/environ" 2>/dev/null || echo "$name"
  done | sort -un
}

# Removes all of tag $1; fails if something was found.
clean() {
  local name id some=0 pids
  for _ in {1..100}; do
    pids=$(processes "$1")
    [ -n "$pids" ] || break
    some=1
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.05
  done
  while read -r name; do some=1 && umount --lazy "$name"; done \
    < <(awk -v tag="/$1" 'index($2, tag) { print $2 }' /proc/self/mounts | tac)
  # Those of a machine's containers are named after the container only.
  for name in "$folder/$1"*/*/run/containerd/io.containerd.runtime.v2.task/k8s.io/*; do
    id=${name##*/}
    rmdir /sys/fs/cgroup/k8s.io/"$id" /sys/fs/cgroup/*/k8s.io/"$id"
  done
  while read -r name; do some=1 && rmdir "$name"; done < <(cgroups "$1")
  for name in /run/netns/"$1"*; do some=1 && ip netns del "${name##*/}"; done
  for name in "$folder/$1"*; do some=1 && rm -rf --one-file-system "$name"; done
  return $some
} 2>/dev/null

# What an owner left whose guard was killed, too.
for name in /run/netns/rt*x* "$folder"/rt*x*; do
  pid=${name##*/rt} pid=${pid%%x*}
  [[ "$pid" =~ ^[0-9]+$ ]] && [ ! -e "/proc/$pid" ] && clean "rt${pid}x"
done

# A signal that ends only cargo would leave the tests running.
parent=$(awk '/^PPid:/ { print $2 }' "/proc/$owner/status" 2>/dev/null)
[ "$(cat "/proc/$parent/comm" 2>/dev/null)" = cargo ] || parent=
while read -r -t 1 || [ $? -gt 128 ]; do
  [ -z "$parent" ] || [ -e "/proc/$parent" ] || kill -TERM "$owner" 2>/dev/null
done
# A program that was just being started may make something meanwhile; what cannot be removed is left to the next run.
for _ in {1..100}; do
  clean "rt${owner}x" && break
  sleep 0.1
done
