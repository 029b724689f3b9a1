# The agent and the certificate authorities that it trusts, nothing else. `make image` builds it, without a registry and
# with any builder: it puts both files into the context.
FROM scratch
COPY berth /usr/bin/berth
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Neither root nor a user of the host. The Docker socket's group comes with --group-add.
USER 65532:65532
# Bring volumes: what is in the first must outlive the container.
ENV BERTH_STATE_DIR=/var/lib/berth BERTH_CONTROL_SOCKET=/run/berth/berth.sock
COPY --chown=65532:65532 empty /var/lib/berth
COPY --chown=65532:65532 empty /run/berth
VOLUME ["/var/lib/berth"]
# As docker stop does by itself; said here because what it means matters: the targets stay registered.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/berth"]
CMD ["run"]
