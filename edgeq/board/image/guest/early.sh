# The initial RAM file system's init: finds the root by its kind, lays memory over it, and goes there.
B=/bin/busybox
$B mount -t devtmpfs dev /dev
while read -r module; do $B insmod "/modules/$module"; done < /modules/order
for disk in /dev/vd?; do
    $B mount -t squashfs -o ro "$disk" /base 2>/dev/null && break
done
$B mount -t tmpfs -o size=60% memory /memory
$B mkdir /memory/upper /memory/work
$B mount -t overlay -o lowerdir=/base,upperdir=/memory/upper,workdir=/memory/work root /system || exec $B sh
$B mount -o move /dev /system/dev
exec $B switch_root /system /sbin/board-init
