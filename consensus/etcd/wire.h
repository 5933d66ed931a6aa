/*
 * wire.h - bodies of etcd's gRPC-gateway: requests written, answers and errors read.  No I/O, no
 * state. Inside this room only.
 */
#ifndef ETCD_WIRE_H
#define ETCD_WIRE_H

#include <dragent/dcs.h>

#define ETCD_BODY_MAX ((size_t)1536 * 1024) /* etcd refuses larger requests */
#define ETCD_PREFIX_MAX 512

/* How an answer that is an error is to be taken (DCS-71). */
enum etcd_class {
    ETCD_OK = 0,
    ETCD_UNAVAILABLE, /* this member cannot; another may (code 14, "not a primary lessor") */
    ETCD_TRANSIENT,   /* again after a while (codes 4 and 9) */
    ETCD_AUTH,        /* the token is missing, old or refused: authenticate, repeat */
    ETCD_AUTH_FAILED, /* wrong user or password */
    ETCD_AUTH_OFF,    /* answer to authenticate: run without a token */
    ETCD_LEASE,       /* requested lease not found */
    ETCD_NOT_V3,      /* the server does not know /v3 */
    ETCD_DEFINITE,    /* no, and asking again changes nothing */
    ETCD_CLASS_COUNT
};
struct etcd_error {
    enum etcd_class class;
    int code; /* gRPC code; 2 if the body says none */
    char text[192];
};
/* Both shapes and both spellings (DCS-70); a body that is no JSON is code 2 with its status in the
 * text. */
void etcd_wire_error(int http_status, const char *body, size_t len, struct etcd_error *out);
/* An error inside a JSON answer that came with 200 (streams); false if there is none. */
bool etcd_wire_stream_error(const struct json *j, struct etcd_error *out);

struct etcd_header {
    uint64_t cluster_id;
    uint64_t raft_term;
    int64_t revision;
};
void etcd_wire_header(const struct json *header, struct etcd_header *out); /* absent fields are 0 */

/* base + "/" -> the end of its range (DCS-01). */
DRA_MUST_USE int etcd_wire_range_end(const char *prefix, char *out, size_t out_size);

/* Requests; each appends one JSON document to `b`. */
void etcd_wire_range(struct dra_buf *b, const char *prefix, const char *range_end);
void etcd_wire_delete_range(struct dra_buf *b, const char *prefix, const char *range_end);
void etcd_wire_txn(struct dra_buf *b, const char *prefix, const struct dcs_txn *t);
void etcd_wire_grant(struct dra_buf *b, int64_t ttl_s);
void etcd_wire_keepalive(struct dra_buf *b, int64_t lease);
void etcd_wire_watch(struct dra_buf *b, const char *prefix, const char *range_end,
                     int64_t start_revision);
void etcd_wire_authenticate(struct dra_buf *b, const char *user, const char *password);

/* Answers.  They fill their part of `out`; false if the answer has not the shape that it must have.
 */
bool etcd_wire_read_txn(const struct json *j, struct dcs_answer *out);
bool etcd_wire_read_grant(const struct json *j, struct dcs_answer *out);
bool etcd_wire_read_keepalive(const struct json *j,
                              struct dcs_answer *out); /* ttl_s 0 = unknown lease */

/* One key of a range or of an event; key and value are decoded into buffers that are overwritten by
 * the next call. false: not below the prefix, or a key with a NUL byte, or no base64. */
struct etcd_kv {
    struct dra_buf key; /* relative */
    struct dra_buf value;
    int64_t mod_revision, create_revision, lease;
};
void etcd_kv_init(struct etcd_kv *kv);
void etcd_kv_deinit(struct etcd_kv *kv);
bool etcd_wire_read_kv(const struct json *j, const char *prefix, struct etcd_kv *out);

/* A watch stream: finds where one JSON document ends, whatever the chunks are. */
struct etcd_framer {
    struct dra_buf doc; /* the document so far */
    int depth;
    bool in_string, escaped;
};
void etcd_framer_init(struct etcd_framer *f);
void etcd_framer_deinit(struct etcd_framer *f);
/* Takes from *p,*n up to the end of one document; true = f->doc holds one (reset it by the next
 * call). */
bool etcd_framer_next(struct etcd_framer *f, const char **p, size_t *n);

/* "3.4.23" -> at least 3.4?  Unknown text counts as new enough. */
bool etcd_wire_version_is_v3(const char *etcdcluster);

#endif
