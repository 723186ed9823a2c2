#!/bin/bash
# A Docker engine in namespaces of its own (network, mounts, processes), whose files lie in memory: with its process 1
# all of it is gone, containers, bridges and mounts too. Nothing of a Docker that the host may have is touched, and the
# kernel gets no module (it may load what it needs by itself) and no AppArmor profile from it.
# usage: engine.sh run FOLDER GROUP       runs until its standard input ends; FOLDER/socket is the engine's, and
#                                         GROUP the control group of its containers
#        engine.sh base PROGRAM...        prints a root file system, as tar, with these programs and what they load
set -eu
PATH=$PATH:/usr/sbin:/sbin

base() {
  local program libraries more=
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  mkdir -m 1777 "$stage/tmp"
  mkdir -p "$stage/etc" "$stage/run" "$stage/root"
  printf 'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n' >"$stage/etc/passwd"
  printf 'root:x:0:\nnode:x:1000:\n' >"$stage/etc/group"
  local loaded=("$@")
  for program; do
    case $program in
      */python3)
        more=$("$program" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
        loaded+=("$more"/lib-dynload/*.so) ;;
    esac
  done
  libraries=$(ldd "${loaded[@]}" 2>/dev/null | grep -v ':$' | grep -o '/[^ ]*' | sort -u)
  # By the names under which they are looked for, whatever these are links to.
  tar -c -C "$stage" . -C / --dereference --exclude=__pycache__ --exclude=test --exclude='config-*' \
    $(printf '%s\n' "$@" $libraries $more | sed 's:^/::' | sort -u)
}

remove_groups() {
  local place attempt
  # Who was killed leaves its group a moment later.
  for attempt in 1 2 3 4 5 6 7 8 9; do
    [ "$attempt" = 1 ] || sleep 0.1
    remove_what_is_empty "$1" && break
  done
}

remove_what_is_empty() {
  local place left=0
  for place in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
    [ ! -d "$place" ] || find "$place" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done
  return $left
}

# Once: its number may be somebody else's after that.
end_engine() {
  [ -n "$engine" ] || return 0
  kill -KILL "$engine" 2>/dev/null || :
  wait "$engine" 2>/dev/null || :
  engine=
}

run() {
  local gone=
  folder=$1
  group=$2
  # With this script goes the engine, however the script ends.
  setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child bash -eu -c '
folder=$1 group=$2
# Its number as it is called outside.
read -r pid rest </proc/self/stat
mount --make-rprivate /
mount -t proc proc /proc
mkdir "$folder/disk"
mount -t tmpfs -o mode=755 tmpfs "$folder/disk"
# Where an engine looks for a containerd that runs already, and where it leaves things beside its own folders.
mount -t tmpfs -o mode=755 tmpfs /run
[ ! -d /sys/kernel/security ] || mount -t tmpfs -o mode=755 tmpfs /sys/kernel/security
for place in etc opt; do
  [ -d "/$place" ] || continue
  mkdir -p "$folder/disk/$place" "$folder/disk/$place.work"
  mount -t overlay -o "lowerdir=/$place,upperdir=$folder/disk/$place,workdir=$folder/disk/$place.work" overlay "/$place"
done
ip link set lo up
echo "$pid" >"$folder/leader"
echo "{}" >"$folder/settings.json"
setpriv --bounding-set=-sys_module --inh-caps=-sys_module dockerd --data-root "$folder/disk/data" --exec-root "$folder/disk/exec" --pidfile "$folder/disk/pid" \
  --host "unix://$folder/socket" --storage-driver overlay2 --cgroup-parent "/$group" --config-file "$folder/settings.json" &
# Process 1 has orphans to reap, which bash does.
wait $!
' engine "$folder" "$group" >"$folder/log" 2>&1 </dev/null &
  engine=$!
  trap 'end_engine; remove_groups $group' EXIT
  # Until the other end of standard input is closed, by the end of who holds it at the latest, or the engine ends.
  while kill -0 "$engine" 2>/dev/null; do
    read -r -t 1 _ || [ $? -gt 128 ] || gone=yes
    [ -z "$gone" ] || break
  done
  end_engine
  # Who was killed cannot do this; who sees the engine end wants to read its log.
  [ -z "$gone" ] || rm -rf "$folder"
}

word=$1
shift
"$word" "$@"
