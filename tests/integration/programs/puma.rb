# SPDX-License-Identifier: MIT

# The sockets that it was given, and no other.
bind_to_activated_sockets 'only'
# A request is read by the thread that answers it: at its end puma closes what it has accepted and not read.
queue_requests false
# No processes of its own.
workers 0
