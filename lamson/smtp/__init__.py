"""The wire: SMTP and LMTP, received and sent. `command` and `data` read, `session` converses, `listener` and `client` hold sockets."""
