/*
 * listen.c - the listening socket (REST-11, REST-12, REST-14).
 *
 * Promises: close-on-exec, so that no child keeps the port; accepted connections inherit the keepalive options.
 * Threads: any.
 */
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG 128

static void set_int(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value); /* only makes dead clients known sooner */
}

static void set_options(int fd, int family)
{
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 10000);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 3);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    if (family == AF_INET6) {
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    }
}

/* Returns the descriptor, or -1 with errno. */
static int try_address(const struct sockaddr *sa, socklen_t len)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    set_options(fd, sa->sa_family);
    if (bind(fd, sa, len) == 0 && listen(fd, LISTEN_BACKLOG) == 0) {
        return fd;
    }
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static int listen_all(int port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = try_address((const struct sockaddr *)&six, sizeof six);
    if (fd < 0 && errno != EADDRINUSE) { /* no IPv6 here */
        fd = try_address((const struct sockaddr *)&four, sizeof four);
    }
    return fd;
}

static int listen_named(const char *host, int port, bool may_resolve, struct dra_err *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    int fd = -1;

    (void)snprintf(service, sizeof service, "%d", port);
    if (!may_resolve && strcmp(host, "localhost") != 0) {
        hints.ai_flags |= AI_NUMERICHOST;
    }
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0) {
        (void)dra_err_set(err, DRA_EINVAL, "restapi.listen: \"%s\": %s%s", host, gai_strerror(rc),
                          may_resolve ? "" : " (a host name is looked up only when the agent starts)");
        return -1;
    }
    errno = EADDRNOTAVAIL;
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = try_address(a->ai_addr, a->ai_addrlen);
    }
    int saved = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        (void)dra_err_sys(err, saved, "restapi.listen: cannot listen at %s:%d", host, port);
    }
    return fd;
}

int rest_listen(const char *host, int port, bool may_resolve, int *out_fd, int *out_port, struct dra_err *err)
{
    char bare[HA_URL_MAX];
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof sa;
    int fd;

    if (dra_str_copy(bare, sizeof bare, host[0] == '[' ? host + 1 : host) != DRA_OK) {
        return dra_err_set(err, DRA_ETOOLONG, "restapi.listen: the host is too long");
    }
    if (host[0] == '[') {
        bare[strcspn(bare, "]")] = '\0';
    }
    if (bare[0] == '\0' || strcmp(bare, "*") == 0) {
        fd = listen_all(port);
        if (fd < 0) {
            return dra_err_sys(err, errno, "restapi.listen: cannot listen at port %d", port);
        }
    } else {
        fd = listen_named(bare, port, may_resolve, err);
        if (fd < 0) {
            return err != NULL && err->code != DRA_OK ? err->code : DRA_ESYS;
        }
    }
    *out_port = port;
    if (port == 0 && getsockname(fd, (struct sockaddr *)&sa, &len) == 0) {
        in_port_t p = sa.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&sa)->sin6_port : ((const struct sockaddr_in *)&sa)->sin_port;
        *out_port = ntohs(p);
    }
    *out_fd = fd;
    return DRA_OK;
}
