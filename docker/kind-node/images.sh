#!/bin/bash
# Puts the control plane's images into containerd's store and writes, to standard output, a tar archive with the
# store and the Kubernetes programs, to be added to the root of the node image.
#
#   images.sh <folder with the programs> <Kubernetes version>
#
# Runs in a privileged container of the stage `base` with an empty volume on /var: unpacking an image mounts overlays,
# which needs a file system that is no overlay itself.
#
# kind gives every node a volume on /var, and the engine copies the image's content into it whenever a node starts, at
# about a second per 100 MB. So the layers' files lie outside, below /kind/images, each snapshot is a link to them, and
# the big executable exists once: the node's programs and those of the images are hard links to one file.
set -euo pipefail
bin=$1 version=$2
out=/var/out work=/var/work
mkdir -p "$out/usr/bin" "$out/kind/images" "$work" /var/lib

exec 3>&1 >&2

# image <entry> <root folder> <name>... writes an archive of one layer, as `docker save` would, to $work/<entry>.tar.
image() {
  local entry=$1 root=$2; shift 2
  local dir=$work/$entry.archive
  mkdir -p "$dir"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$dir/layer.tar" .
  jq -n --arg diff "sha256:$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)" --arg entry "/$entry" \
    '{architecture: "'"$(dpkg --print-architecture)"'", os: "linux", config: {Entrypoint: [$entry], Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin"]}, rootfs: {type: "layers", diff_ids: [$diff]}}' > "$dir/config.json"
  jq -n '[{Config: "config.json", Layers: ["layer.tar"], RepoTags: $ARGS.positional}]' --args "$@" > "$dir/manifest.json"
  tar -C "$dir" -cf "$work/$entry.tar" manifest.json config.json layer.tar
  rm -r "$dir"
}

# The names kubeadm and containerd will ask for.
mkdir -p "$work/kubeadm"
cp "$bin/kube" "$work/kubeadm/kubeadm"
mapfile -t wanted < <("$work/kubeadm/kubeadm" config images list --kubernetes-version "$version")
name() { printf '%s\n' "${wanted[@]}" | grep "/$1:"; }
sandbox=$(sed -n 's/.*sandbox_image = "\(.*\)"/\1/p' /etc/containerd/config.toml)

# Every image holds placeholders for the big executable; the links are made below.
programs=(kube-apiserver kube-controller-manager kube-scheduler)
for program in "${programs[@]}"; do
  mkdir -p "$work/$program/usr/local/bin" "$work/$program/etc" "$work/$program/tmp"
  touch "$work/$program/usr/local/bin/$program"
  image "$program" "$work/$program" "$(name "$program")"
done

# kube-proxy calls nft and iptables, with their libraries.
proxy=$work/kube-proxy
mkdir -p "$proxy"/{etc,run,tmp,usr/lib,usr/lib64,usr/local/bin,usr/sbin,var/lib}
ln -s usr/sbin "$proxy/sbin"; ln -s usr/lib "$proxy/lib"; ln -s usr/lib64 "$proxy/lib64"
touch "$proxy/usr/local/bin/kube-proxy"
mkdir "$proxy/etc/alternatives"
cp -a /etc/alternatives/{ip,ip6}tables{,-save,-restore} "$proxy/etc/alternatives/"
cp -a /usr/sbin/{ip6,ip}tables* /usr/sbin/xtables-* /usr/sbin/nft "$proxy/usr/sbin/"
cp -aL --parents /usr/lib/*/xtables "$proxy/"
ldd /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/nft /usr/lib/*/xtables/*.so | grep -o '/[^ )]*' | sort -u | grep -v ':$' | while read -r library; do
  cp -L --parents "$library" "$proxy/"
done
image kube-proxy "$proxy" "$(name kube-proxy)"

for program in etcd coredns pause; do mkdir -p "$work/$program"; done
mkdir -p "$work/etcd/usr/local/bin" "$work/etcd/tmp"
cp "$bin/etcd" "$work/etcd/usr/local/bin/etcd"
image etcd "$work/etcd" "$(name etcd)"
cp "$bin/coredns" "$work/coredns/coredns"
image coredns "$work/coredns" "$(name coredns)"
cp "$bin/pause" "$work/pause/pause"
image pause "$work/pause" $(printf '%s\n' "$(name pause)" "$sandbox" | sort -u)

containerd > "$work/containerd.log" 2>&1 &
daemon=$!
for attempt in $(seq 100); do
  ctr version > /dev/null 2>&1 && break
  kill -0 $daemon || { cat "$work/containerd.log"; exit 1; }
  read -rt 0.1 <> <(:) || :
done
for archive in "$work"/*.tar; do
  ctr --namespace k8s.io images import "$archive"
done
ctr --namespace k8s.io images ls -q
# The layers' blobs are not needed once unpacked.
ctr --namespace k8s.io content prune references
kill $daemon
wait $daemon || :

store=/var/lib/containerd
snapshots=$store/io.containerd.snapshotter.v1.overlayfs/snapshots
install -m 0755 "$bin/kube" "$out/usr/bin/kube"
for program in kubeadm kubectl kubelet; do ln "$out/usr/bin/kube" "$out/usr/bin/$program"; done
for snapshot in "$snapshots"/*; do
  id=$(basename "$snapshot")
  mv "$snapshot/fs" "$out/kind/images/$id"
  ln -s "/kind/images/$id" "$snapshot/fs"
  for program in "${programs[@]}" kube-proxy; do
    placeholder=$out/kind/images/$id/usr/local/bin/$program
    if [ -f "$placeholder" ]; then ln -f "$out/usr/bin/kube" "$placeholder"; fi
  done
done
rm -rf "$store"/io.containerd.content.v1.content/ingest "$store/tmpmounts"
mkdir -p "$out/var/lib"
mv "$store" "$out/var/lib/containerd"
printf '%s' "$version" > "$out/kind/version"
du -sh "$out/var" "$out/kind/images" "$out"
tar --sort=name --numeric-owner -C "$out" -cf - . >&3
