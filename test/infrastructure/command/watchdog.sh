# Ends the groups of processes that its standard input names once the process at the other end of it is gone: "+ 12" adds
# group 12, "- 12" takes it off. What ends that process must not end this one.
trap '' HUP INT QUIT TERM
groups=
while read -r change group; do
  case $change in
  +) groups="$groups $group" ;;
  -)
    others=
    for other in $groups; do
      [ "$other" = "$group" ] || others="$others $other"
    done
    groups=$others
    ;;
  esac
done
[ -n "$groups" ] || exit 0
for group in $groups; do kill -s TERM -- "-$group"; done
sleep "$1"
for group in $groups; do kill -s KILL -- "-$group"; done
