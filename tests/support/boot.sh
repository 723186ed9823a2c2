#!/bin/bash
# A host that boots: systemd as process 1 of namespaces of its own, over this host's root, in cgroups of its own.
# What it writes stays below FOLDER/up, which must be on another file system than the root, and is there again at the
# next boot. Ends with the host: 129 after a reboot, 130 after a power off (the signals of reboot(2) in a pid
# namespace).
# usage: boot.sh FOLDER GROUP      boot
#        boot.sh remove GROUP      remove the cgroups
set -eu
groups=/sys/fs/cgroup
controllers=$(ls $groups | grep -Ev '^(unified|systemd)$')
own() { awk -F: -v c="$1" '{ n = split($2, a, ","); for (i = 1; i <= n; i++) if (a[i] == c || a[i] == "name=" c) print $3 }' /proc/self/cgroup; }
place() { echo "$groups/$1$(own "$1")/$group" | sed 's://*:/:g'; }
folder=$1 group=$2
folders=$(for name in $controllers systemd; do place $name; done; echo $groups/unified/$group)
if [ "$folder" = remove ]; then
  for place in $folders; do [ ! -d $place ] || find $place -depth -type d -exec rmdir {} + 2>/dev/null || :; done
  exit 0
fi
for place in $folders; do
  mkdir -p $place
  case $place in
    */cpuset/*) for file in cpuset.mems cpuset.cpus; do cat $(dirname $place)/$file > $place/$file; done ;;
  esac
  echo $$ > $place/cgroup.procs
done
exec unshare --cgroup --mount --pid --fork --uts --ipc --net --kill-child bash -eu -c '
folder=$1; shift; tree=$folder/tree
mkdir -p $folder/up $folder/work $tree
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=/,upperdir=$folder/up,workdir=$folder/work $tree
if [ ! -e $folder/prepared ]; then
  : > $tree/etc/machine-id
  rm -rf $tree/etc/systemd/system/*.wants $tree/etc/systemd/system/*.requires
  rm -f $tree/.dockerenv
  units=$(cd $tree/lib/systemd/system && ls -d {multi-user,graphical}.target.wants/* 2>/dev/null | xargs -rn1 basename | grep -Ev "^(dbus|getty|systemd-)" || :)
  more="systemd-timesyncd systemd-networkd getty@tty1 console-getty systemd-udevd systemd-udev-trigger systemd-logind"
  for unit in $units $(printf "%s.service " $more); do ln -sfn /dev/null $tree/etc/systemd/system/$unit; done
  touch $folder/prepared
fi
mount -t proc proc $tree/proc
mount -t sysfs -o ro sysfs $tree/sys
mount -t tmpfs -o mode=755 tmpfs $tree/run
mount -t tmpfs -o mode=755 tmpfs $tree/dev
for node in null zero full random urandom tty; do touch $tree/dev/$node; mount --bind /dev/$node $tree/dev/$node; done
mkdir $tree/dev/pts $tree/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $tree/dev/pts
ln -s pts/ptmx $tree/dev/ptmx
mount -t tmpfs tmpfs $tree/dev/shm
mount -t tmpfs tmpfs $tree/tmp
ln -s /proc/self/fd $tree/dev/fd
ln -s fd/0 $tree/dev/stdin; ln -s fd/1 $tree/dev/stdout; ln -s fd/2 $tree/dev/stderr
mount -t tmpfs -o mode=755 tmpfs $tree/sys/fs/cgroup
for name in "$@"; do mkdir $tree/sys/fs/cgroup/$name; mount -t cgroup -o $name cgroup $tree/sys/fs/cgroup/$name; done
mkdir $tree/sys/fs/cgroup/systemd $tree/sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup $tree/sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 $tree/sys/fs/cgroup/unified
cd $tree
mkdir -p .old
pivot_root . .old
umount -l /.old
hostname booted
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd systemd.log_target=journal
' boot "$folder" $controllers
