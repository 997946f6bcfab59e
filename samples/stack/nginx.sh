#!/bin/sh
# nginx before `hello` (at /) and `etcd` (at /etcd/): asks Skep's DNS each second where their instances are, and has nginx read its settings anew
# when that has changed. Where the cluster's names are, the agent says: `skep up --dns …` or `skep agent --dns …`.
cd /sandbox || exit 1
: "${SKEP_DNS:?nobody said where names are: skep agent --dns HOST:PORT}"

ask() {
    for server in $(echo "$SKEP_DNS" | tr ',' ' '); do
        host=$(echo "${server%:*}" | tr -d '[]')
        dig +short +time=1 +tries=1 "@$host" -p "${server##*:}" "$@" 2>/dev/null && return
    done
    return 1
}

# `upstream NAME { … }` with all instances of a service; fails where nobody answers. PORT SERVICE NAME.
upstream() {
    found=$(ask SRV "_$1._tcp.$2") || return 1
    echo "upstream $3 {"
    echo "$found" | sort | while read -r _ _ port host; do
        [ -n "$host" ] || continue
        address=$(ask A "$host" | head -n 1)
        [ -z "$address" ] || echo "    server $address:$port;"
    done
    # So that there is one: with nothing else nginx answers 502.
    echo "    server 127.0.0.1:1 down;"
    echo "}"
}

settings() {
    cat <<TOP
daemon off;
worker_processes 1;
error_log stderr;
pid /sandbox/nginx.pid;
events {}
http {
access_log off;
client_body_temp_path /sandbox/body;
proxy_temp_path /sandbox/proxy;
fastcgi_temp_path /sandbox/fastcgi;
uwsgi_temp_path /sandbox/uwsgi;
scgi_temp_path /sandbox/scgi;
TOP
    upstream http hello.default.skep hello || return 1
    upstream client etcd.default.skep etcd || return 1
    cat <<BOTTOM
server {
    listen 127.0.0.1:$PORT_HTTP;
    location / { proxy_pass http://hello; }
    location /etcd/ { proxy_pass http://etcd/; }
}
}
BOTTOM
}

until settings > nginx.conf; do sleep 1; done
# While no name is answered for, nginx goes on with what it knows.
while sleep 1; do
    settings > new && ! cmp -s new nginx.conf && mv new nginx.conf && kill -HUP $$
done &
exec nginx -e stderr -c /sandbox/nginx.conf
