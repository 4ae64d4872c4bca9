# Runs in a container of its own that shares the volumes of a node: sh -s <task> <folder>, the folder being the node's /var.
# The node is frozen or stopped meanwhile. The last line is: <sum> <kilobytes>.
set -eu
cd "$2"
mkdir -p .parked
# A container whose maker was killed works on to its end.
exec 9>.parked/lock
flock 9

contents() { find . -mindepth 1 -maxdepth 1 ! -name .parked "$@"; }

empty() {
  # kind's entrypoint writes the container's address into this file when it has changed, and into others outside of /var:
  # it must be as old as those are, and not as what is put back.
  if [ -e lib/kubelet/kubeadm-flags.env ]; then
    cp -p lib/kubelet/kubeadm-flags.env .parked/flags.new
    mv .parked/flags.new .parked/flags
  fi
  contents -exec rm -rf {} +
}

# What identifies the state in a folder: of all files kind, mode, owner, name and where it leads; of regular ones also what
# is in them.
sum() (
  cd "$1"
  {
    find . -mindepth 1 -path ./.parked -prune -o -printf '%y %m %U %G %p %l\n' | LC_ALL=C sort
    find . -path ./.parked -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 cksum
  } | sha256sum
)

counted=.parked # whose size is told
case $1 in
keep)
  rm -rf .parked/new
  trap 'rm -rf .parked/new' EXIT # of no use where there was no room for all of it
  mkdir .parked/new
  sum . >.parked/sum & # of what is copied: the copy has to be like it
  contents -exec cp -a -t .parked/new {} +
  wait $!
  echo copied
  rm -rf .parked/state
  mv .parked/new .parked/state
  ;;
fill)
  counted=.
  empty
  sum .parked/state >.parked/sum &
  cp -al .parked/state/. .
  # Links serve for what containerd never writes again: blobs, and the snapshots of containers that do not come back.
  (cd .parked/state && find . \( -name blobs -o -name snapshots \) -path './lib/containerd/*' -prune -o -type f -print0) |
    xargs -0 sh -c 'cd .parked/state && cp -a --remove-destination --parents -t "$0" "$@"' "$2"
  if [ -e .parked/flags ]; then
    cp -p --remove-destination .parked/flags lib/kubelet/kubeadm-flags.env
  fi
  wait $!
  ;;
sum)
  sum .parked/state >.parked/sum
  ;;
esac
echo "$(cut -d ' ' -f 1 .parked/sum) $(du -sk "$counted" | cut -f 1)"
