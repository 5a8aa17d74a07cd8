#!/usr/bin/env bash
# Two profanities in tmux: login over verified STARTTLS, subscription, presence, a message each way.
# Usage: profanity.sh ADDRESS PORT CA.pem USER PASSWORD USER PASSWORD
set -eu
[ $# -eq 7 ] || { sed -n 3p "$0" >&2; exit 2; }
address=$1 port=$2 authority=$3
declare -A user=([one]=$4 [two]=$6) password=([one]=$5 [two]=$7)
step_s=${STEP_S:-20}

work=$(mktemp -d)
tmux() { command tmux -S "$work/tmux" -f /dev/null "$@"; }
trap 'tmux kill-server 2>/dev/null || true; rm -rf "$work"' EXIT

screen() { tmux capture-pane -p -J -t "$1"; }

# until_seen WHO REGEX: waits until the screen shows it; shows the screen when it does not in time.
until_seen() {
  local end=$((SECONDS + step_s))
  until screen "$1" | grep -Eq -- "$2"; do
    if ((SECONDS > end)); then
      printf 'profanity: %s does not see "%s" within %s s. Its screen:\n' "$1" "$2" "$step_s" >&2
      screen "$1" >&2
      exit 1
    fi
    sleep 0.05
  done
}

# say WHO LINE: types a line.
say() { tmux send-keys -t "$1" -l -- "$2"; tmux send-keys -t "$1" Enter; }

# OpenSSL finds an authority in a folder by the hash of its name.
mkdir "$work/ca"
cp "$authority" "$work/ca/ca.pem"
openssl rehash "$work/ca"

for who in one two; do
  mkdir -p "$work/$who/config" "$work/$who/data"
  tmux new-session -d -s "$who" -x 160 -y 50 \
    "env XDG_CONFIG_HOME='$work/$who/config' XDG_DATA_HOME='$work/$who/data' TERM=screen profanity"
  until_seen "$who" 'Version [0-9]|Welcome to Profanity, version'
  say "$who" "/tls certpath set $work/ca"
  until_seen "$who" 'Certificate path set to'
  say "$who" "/connect ${user[$who]}@localhost server $address port $port tls force"
  until_seen "$who" 'Enter password:'
  say "$who" "${password[$who]}"
  until_seen "$who" 'logged in successfully'
  say "$who" '/presence console all'
done
one=${user[one]}@localhost two=${user[two]}@localhost

# subscribe ASKER CONTACT ASKERS_JID CONTACTS_JID
subscribe() {
  say "$1" "/sub request $4"
  until_seen "$2" "authorization request from $3"
  say "$2" "/sub allow $3"
}
subscribe one two "$one" "$two"
until_seen one "$two.*is online"
subscribe two one "$two" "$one"

# Presence: a change of one is seen by the other.
say two '/status set away lunch'
until_seen one "${user[two]}.*is away, .lunch"
say one '/status set dnd busy'
until_seen two "${user[one]}.*is dnd, .busy"

# A message each way.
say one "/msg $two the thing meets at dawn"
until_seen two "${user[one]}.*\(win|the thing meets at dawn"
say two "/msg $one all will come"
until_seen one 'all will come'
until_seen two 'the thing meets at dawn'

# One leaves, the other sees it go.
say two '/msg '"$one"
say one '/disconnect'
until_seen one 'logged out successfully|Disconnected'
say two '/win 1'
until_seen two "${user[one]}.*is offline|- $one"
echo "profanity: login with STARTTLS, presence and a message each way are fine"
