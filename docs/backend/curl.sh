#!/usr/bin/env bash
# Calls Parley's HTTP API with curl, to try it out:
#
#   ./curl.sh publish chat:1 'hello from curl'
#   ./curl.sh once orders order-7 'order 7 is paid'
#   ./curl.sh history orders
#   ./curl.sh everybody 'the shop closes in five minutes'
#   ./curl.sh members chat:1
#   ./curl.sh disconnect 8fc1000100000a3c5be7d1a2
#
# PARLEY_API_KEY is the key, as `parley key create` prints it; PARLEY_URL is where the API listens, if that is not
# http://127.0.0.1:9092. The scopes are publish for publish, once and everybody, read for history and members, manage for
# disconnect. once and history need a room that keeps a history: parley serve --history 'orders=messages:100'.
set -euo pipefail

url=${PARLEY_URL:-http://127.0.0.1:9092}

# The key comes from a pipe: as an argument of curl, every user of the machine could read it in the list of processes.
call() {
  local answer status=0
  answer=$(curl --silent --show-error --fail-with-body --max-time 5 \
    --header @<(printf 'Authorization: Bearer %s\n' "${PARLEY_API_KEY:-}") "$@") || status=$?
  if [ "$status" -eq 22 ]; then # Parley refused: the answer is a problem document, whose code is what programs look at
    printf '%s\n' "$answer" >&2
    exit 1
  elif [ "$status" -ne 0 ]; then
    exit "$status" # curl has said why
  fi
  printf '%s\n' "$answer"
}

post() { # PATH BODY
  call --header 'Content-Type: application/json' --data-binary @- "$url$1" <<<"$2"
}

# quoted is a text as a string of JSON. Bytes below the space are left out; jq does this better where it is installed.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"
}

case "$#:${1:-}" in
  3:publish) # the members of a room get {"type":"broadcast","room":"chat:1","data":{"text":...},...}
    post /v1/publish "{\"room\":$(quoted "$2"),\"data\":{\"text\":$(quoted "$3")}}"
    ;;
  4:once) # sent again, also after an answer that got lost, it publishes nothing: {"seq":7,"epoch":"...","duplicate":true}
    post /v1/publish "{\"room\":$(quoted "$2"),\"idempotency_key\":$(quoted "$3"),\"data\":{\"text\":$(quoted "$4")}}"
    ;;
  2:history) # the newest 50; for those behind a number add since_seq=N and the epoch that the answer names
    call --get --data-urlencode "room=$2" "$url/v1/history"
    ;;
  2:everybody) # all connections get the message as it stands here, with a type of your own
    post /v1/publish "{\"everybody\":true,\"message\":{\"type\":\"notice\",\"text\":$(quoted "$2")}}"
    ;;
  2:members) # a page of at most 100; where the answer has "next", add --data-urlencode "after=NEXT" for the following page
    call --get --data-urlencode "room=$2" "$url/v1/members"
    ;;
  2:disconnect) # close code 4007 tells the client to stay away
    post /v1/disconnect "{\"connection\":$(quoted "$2"),\"reason\":\"asked to leave\"}"
    ;;
  *)
    echo "usage: $0 publish ROOM TEXT | once ROOM KEY TEXT | history ROOM | everybody TEXT | members ROOM | disconnect CONNECTION" >&2
    exit 2
    ;;
esac
