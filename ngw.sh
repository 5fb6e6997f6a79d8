#!/bin/sh
NGINX='3;' exec nginx -c /tmp/m/ngx.conf
