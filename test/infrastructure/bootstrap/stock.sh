#!/bin/bash
# Puts images into the containerd store of the node image that it runs in, and writes, to standard output, a tar archive
# to be added to the root of that image.
#
#   stock.sh <archive of images>
#
# Runs with an empty volume on /var, into which the engine has copied the image's. As docker/kind-node/images.sh does, it
# leaves the layers' files outside of /var, where a node finds them by links: what is in /var is copied at every start.
set -euo pipefail
store=/var/lib/containerd out=/var/out
snapshots=$store/io.containerd.snapshotter.v1.overlayfs/snapshots
mkdir -p "$out/kind/images" "$out/var/lib"
exec 3>&1 >&2

containerd > /var/containerd.log 2>&1 &
daemon=$!
for attempt in $(seq 100); do
  ctr version > /dev/null 2>&1 && break
  kill -0 $daemon || { cat /var/containerd.log; exit 1; }
  read -rt 0.1 <> <(:) || :
done
ctr --namespace k8s.io images import --local "$1"
# The layers' blobs are not needed once unpacked.
ctr --namespace k8s.io content prune references
kill $daemon
wait $daemon || :

for snapshot in "$snapshots"/*; do
  if [ ! -L "$snapshot/fs" ]; then
    id=$(basename "$snapshot")
    mv "$snapshot/fs" "$out/kind/images/$id"
    ln -s "/kind/images/$id" "$snapshot/fs"
  fi
done
rm -rf "$store"/io.containerd.content.v1.content/ingest "$store/tmpmounts"
mv "$store" "$out/var/lib/containerd"
tar --sort=name --numeric-owner -C "$out" -cf - . >&3
