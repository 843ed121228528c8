#!/bin/sh
# Open WebUI reads its secrets from the environment alone. They arrive as files and become environment here, inside the
# container, so that `docker inspect` shows none of them.
set -eu
secret() { # secret VARIABLE FILE
    if [ -r "/run/secrets/$2" ]; then
        value=$(cat "/run/secrets/$2")
        export "$1=$value"
    fi
}
secret WEBUI_SECRET_KEY webui_secret_key
secret WEBUI_ADMIN_PASSWORD webui_admin_password
if [ -z "${WEBUI_SECRET_KEY:-}" ]; then
    echo "error: no secret key: give the file /run/secrets/webui_secret_key or WEBUI_SECRET_KEY" >&2
    exit 1
fi
exec "$@"
