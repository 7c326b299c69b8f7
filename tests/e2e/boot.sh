#!/bin/sh
# Become a systemd that runs as PID 1 on a throw-away copy of this machine's files.
#
#   unshare --pid --mount --ipc --uts --cgroup --net --fork boot.sh STAGE PYTHON SITE_PACKAGES
#
# STAGE is an empty directory. The overlay's upper layer is a tmpfs in this mount namespace: all that
# the booted system writes is gone with it. PYTHON (an installation's prefix) and SITE_PACKAGES appear
# under /opt, since the unit under test hides /home, /root and /tmp from what it runs.
set -eu
stage=$1 python=$2 site_packages=$3

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
mkdir -p "$stage/root/opt/python" "$stage/root/opt/site-packages"
mount --bind "$python" "$stage/root/opt/python"
mount --bind "$site_packages" "$stage/root/opt/site-packages"
cd "$stage/root"

# The file systems that systemd expects of a container (systemd.io/CONTAINER_INTERFACE).
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp

# Nothing of this machine's own services: only the journal, and the targets that units lean on.
mount -t tmpfs -o mode=755 tmpfs etc/systemd
mkdir etc/systemd/system etc/systemd/journald.conf.d
if [ -d usr/lib/systemd/system-generators ]; then
    mount -t tmpfs -o mode=755 tmpfs usr/lib/systemd/system-generators
fi
for wanted in usr/lib/systemd/system/*.target.wants/*; do
    case ${wanted##*/} in
        systemd-journald* | *.target | *.slice) ;;
        *) ln -sf /dev/null "etc/systemd/system/${wanted##*/}" ;;
    esac
done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >etc/systemd/system/default.target
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >etc/systemd/journald.conf.d/tests.conf
rm -f etc/machine-id
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id

ip link set lo up
pivot_root . .
umount -l .
exec env -i container=drumd-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/lib/systemd/systemd --log-target=console --log-level=info
