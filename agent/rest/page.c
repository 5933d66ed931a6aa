/*
 * page.c - answers as bytes: headers (REST-03), error pages (REST-06).
 *
 * Threads: REST thread only.
 */
#include "server.h"

#include <stdio.h>
#include <string.h>

struct reason {
    int status;
    const char *phrase, *explain;
};

static const struct reason *reason_of(int status)
{
    static const struct reason reasons[] = {
        {400, "Bad Request", "Bad request syntax or unsupported method"},
        {404, "Not Found", "Nothing matches the given URI"},
        {409, "Conflict", "Request conflict"},
        {411, "Length Required", "Client must specify Content-Length"},
        {413, "Request Entity Too Large", "Entity is too large"},
        {501, "Unsupported method", "Server does not support this operation"},
        {502, "Bad Gateway", "Invalid responses from another server/proxy."},
        {503, "Service Unavailable", "The server cannot process the request due to a high load"},
        {500, "Internal Server Error", "Server got itself in trouble"}, /* last: the default */
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(reasons); i++) {
        if (reasons[i].status == status) {
            return &reasons[i];
        }
    }
    return &reasons[DRA_ARRAY_LEN(reasons) - 1];
}

static bool add(struct MHD_Response *m, const char *name, const char *value)
{
    return MHD_add_response_header(m, name, value) == MHD_YES;
}

enum MHD_Result rest_page_send(struct rest_conn *rc, const struct rest_page *p)
{
    const char *body = p->body != NULL && !rc->probe ? p->body : "";
    struct MHD_Response *m = MHD_create_response_from_buffer(strlen(body), (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result rc_queue = MHD_NO;

    if (m == NULL) {
        return MHD_NO;
    }
    bool ok = add(m, "Server", "dragent/" DRA_VERSION);
    if (p->header != NULL) {
        ok = add(m, p->header, p->header_value) && ok;
    }
    if (body[0] != '\0') {
        ok = add(m, "Content-Type", p->content_type != NULL ? p->content_type : "text/html") && ok;
    }
    if (rc->srv->stopping && p->header == NULL) {
        ok = add(m, "Connection", "close") && ok;
    }
    if (ok) {
        rc_queue = MHD_queue_response(rc->c, (unsigned)p->status, m);
    }
    MHD_destroy_response(m);
    if (rc_queue == MHD_YES && !rc->queued) {
        rc->queued = true;
        rc->srv->n_queued++;
    }
    return rc_queue;
}

/* Only printable ASCII that means nothing in HTML. */
static void add_safely(struct dra_buf *b, const char *s)
{
    for (; *s != '\0'; s++) {
        bool plain = *s >= ' ' && *s < 0x7F && strchr("<>&'\"", *s) == NULL;
        dra_buf_add(b, plain ? s : "?", 1);
    }
}

enum MHD_Result rest_page_error(struct rest_conn *rc, int status)
{
    const struct reason *r = reason_of(status);
    struct dra_buf b;

    dra_buf_init(&b, 4096);
    dra_buf_addf(&b,
                 "<!DOCTYPE HTML>\n<html lang=\"en\">\n    <head>\n        <meta charset=\"utf-8\">\n"
                 "        <title>Error response</title>\n    </head>\n    <body>\n        <h1>Error response</h1>\n"
                 "        <p>Error code: %d</p>\n        <p>Message: %s",
                 status, r->phrase);
    if (status == 501) {
        dra_buf_adds(&b, " ('");
        add_safely(&b, rc->method);
        dra_buf_adds(&b, "')");
    }
    dra_buf_addf(&b, ".</p>\n        <p>Error code explanation: %d - %s.</p>\n    </body>\n</html>\n", status, r->explain);
    struct rest_page p = {.status = status,
                          .content_type = "text/html;charset=utf-8",
                          .body = dra_buf_str(&b),
                          .header = "Connection",
                          .header_value = "close"};
    enum MHD_Result out = rest_page_send(rc, &p);
    dra_buf_deinit(&b);
    return out;
}
