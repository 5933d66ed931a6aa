/*
 * keys.c - the tables.  One row per key: what it is called, what it takes, where it may come from.
 *
 * Rows follow spec sections CFG-20 .. CFG-37 (local), CFG-50 .. CFG-57 (dynamic) and CFG-100 (our own).
 * Threads: constant data.
 */
#include "keys.h"

#include <string.h>

#define NOENV NULL
#define ROW(p, t, d, lo, hi, r, e, w, h) {p, CONF_T_##t, d, lo, hi, CONF_##r, e, w, h}
#define STR(p, d, r, e, h) ROW(p, STR, d, 0, 0, r, e, NULL, h)
#define BOOL(p, d, r, e, h) ROW(p, BOOL, d, 0, 0, r, e, NULL, h)
#define INT(p, d, lo, hi, r, e, h) ROW(p, INT, d, lo, hi, r, e, NULL, h)
#define FREE(p, h) ROW(p, FREE, NULL, 0, 0, LIVE, NOENV, NULL, h)

#define LEVELS "DEBUG INFO WARN WARNING ERROR FATAL CRITICAL"

const struct conf_key conf_local_keys[] = {
    /* CFG-20 */
    STR("name", NULL, AGENT, "NAME", "member name"),
    STR("scope", NULL, AGENT, "SCOPE", "cluster name"),
    STR("namespace", "service", AGENT, "NAMESPACE", "first part of the keys in etcd"),
    INT("thread_pool_size", "5", 0, 0, AGENT, "THREAD_POOL_SIZE", "accepted; peers are called in parallel anyway"),
    ROW("thread_stack_size", SIZE, "512kB", 0, 0, AGENT, "THREAD_STACK_SIZE", NULL, "accepted and ignored"),
    /* CFG-21 */
    ROW("log.type", WORD, "plain", 0, 0, LIVE, "LOG_TYPE", "plain json", "shape of log lines"),
    ROW("log.level", WORD, "INFO", 0, 0, LIVE, "LOG_LEVEL", LEVELS, "least level written"),
    ROW("log.traceback_level", WORD, "ERROR", 0, 0, LIVE, "LOG_TRACEBACK_LEVEL", "DEBUG ERROR", "accepted"),
    ROW("log.format", ANY, "%(asctime)s %(levelname)s: %(message)s", 0, 0, LIVE, "LOG_FORMAT", NULL, "format of a plain line"),
    STR("log.dateformat", NULL, LIVE, "LOG_DATEFORMAT", "strftime format of the time"),
    ROW("log.static_fields", FREE, NULL, 0, 0, LIVE, "LOG_STATIC_FIELDS", NULL, "constant fields of json lines"),
    INT("log.max_queue_size", "1000", 0, 0, LIVE, "LOG_MAX_QUEUE_SIZE", "accepted"),
    STR("log.dir", NULL, LIVE, "LOG_DIR", "directory of patroni.log; none = stderr"),
    INT("log.mode", NULL, 0, 511, LIVE, "LOG_MODE", "mode of log files"),
    INT("log.file_size", "25000000", 0, 0, LIVE, "LOG_FILE_SIZE", "bytes at which a log file is rotated"),
    INT("log.file_num", "4", 0, 0, LIVE, "LOG_FILE_NUM", "rotated files kept"),
    ROW("log.loggers", FREE, NULL, 0, 0, LIVE, "LOG_LOGGERS", NULL, "level per component"),
    BOOL("log.deduplicate_heartbeat_logs", "false", LIVE, "LOG_DEDUPLICATE_HEARTBEAT_LOGS", "drop a repeated no-action line"),
    /* CFG-22 */
    ROW("restapi.listen", ADDR, NULL, 0, 0, LIVE, "RESTAPI_LISTEN", NULL, "host:port to listen on"),
    ROW("restapi.connect_address", ADDR, NULL, 0, 0, LIVE, "RESTAPI_CONNECT_ADDRESS", NULL, "host:port told to the others"),
    STR("restapi.authentication.username", NULL, LIVE, "RESTAPI_USERNAME", "user for calls that change something"),
    STR("restapi.authentication.password", NULL, LIVE, "RESTAPI_PASSWORD", "its password"),
    STR("restapi.certfile", NULL, LIVE, "RESTAPI_CERTFILE", "server certificate; switches TLS on"),
    STR("restapi.keyfile", NULL, LIVE, "RESTAPI_KEYFILE", "its key"),
    STR("restapi.keyfile_password", NULL, LIVE, "RESTAPI_KEYFILE_PASSWORD", "password of the key"),
    STR("restapi.cafile", NULL, LIVE, "RESTAPI_CAFILE", "authorities of client certificates"),
    STR("restapi.ciphers", NULL, LIVE, "RESTAPI_CIPHERS", "TLS ciphers"),
    ROW("restapi.verify_client", WORD, "none", 0, 0, LIVE, "RESTAPI_VERIFY_CLIENT", "none optional required", "client certificates"),
    ROW("restapi.allowlist", LIST, NULL, 0, 0, LIVE, "RESTAPI_ALLOWLIST", NULL, "addresses that may change something"),
    BOOL("restapi.allowlist_include_members", "false", LIVE, "RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "members count as allowed"),
    ROW("restapi.http_extra_headers", FREE, NULL, 0, 0, LIVE, "RESTAPI_HTTP_EXTRA_HEADERS", NULL, "headers added to answers"),
    ROW("restapi.https_extra_headers", FREE, NULL, 0, 0, LIVE, "RESTAPI_HTTPS_EXTRA_HEADERS", NULL, "the same with TLS"),
    INT("restapi.request_queue_size", "5", 0, 4096, AGENT, "RESTAPI_REQUEST_QUEUE_SIZE", "accepted"),
    INT("restapi.thread_pool_size", "5", 0, 0, AGENT, "RESTAPI_THREAD_POOL_SIZE", "accepted"),
    ROW("restapi.server_tokens", WORD, "original", 0, 0, LIVE, "RESTAPI_SERVER_TOKENS", "minimal productonly original", "Server header"),
    /* CFG-23 */
    STR("ctl.authentication.username", NULL, LIVE, "CTL_USERNAME", "user for calls to other nodes"),
    STR("ctl.authentication.password", NULL, LIVE, "CTL_PASSWORD", "its password"),
    BOOL("ctl.insecure", "false", LIVE, "CTL_INSECURE", "command line: do not verify certificates"),
    STR("ctl.cacert", NULL, LIVE, "CTL_CACERT", "authorities of REST certificates"),
    STR("ctl.certfile", NULL, LIVE, "CTL_CERTFILE", "client certificate"),
    STR("ctl.keyfile", NULL, LIVE, "CTL_KEYFILE", "its key"),
    STR("ctl.keyfile_password", NULL, LIVE, "CTL_KEYFILE_PASSWORD", "password of the key"),
    FREE("ctl.keepalive", "accepted"),
    /* CFG-24: the environment of store sections is generic (CFG-12) */
    STR("etcd3.host", NULL, AGENT, NOENV, "host[:port]"),
    ROW("etcd3.hosts", ANY, NULL, 0, 0, AGENT, NOENV, NULL, "several endpoints, list or comma-separated"),
    STR("etcd3.url", NULL, AGENT, NOENV, "URL of one endpoint"),
    STR("etcd3.proxy", NULL, AGENT, NOENV, "URL of a proxy"),
    STR("etcd3.srv", NULL, AGENT, NOENV, "domain of SRV records"),
    STR("etcd3.srv_domain", NULL, AGENT, NOENV, "older name of srv"),
    STR("etcd3.discovery_srv", NULL, AGENT, NOENV, "older name of srv"),
    STR("etcd3.srv_suffix", NULL, AGENT, NOENV, "suffix of SRV names"),
    BOOL("etcd3.use_proxies", "false", AGENT, NOENV, "use only the given endpoints"),
    ROW("etcd3.protocol", WORD, "http", 0, 0, AGENT, NOENV, "http https", "protocol of host and hosts"),
    INT("etcd3.port", "2379", 1, 65535, AGENT, NOENV, "port where none is given"),
    STR("etcd3.username", NULL, LIVE, NOENV, "user in etcd"),
    STR("etcd3.password", NULL, LIVE, NOENV, "its password"),
    STR("etcd3.cacert", NULL, AGENT, NOENV, "authorities of etcd's certificate"),
    STR("etcd3.cert", NULL, AGENT, NOENV, "client certificate"),
    STR("etcd3.key", NULL, AGENT, NOENV, "its key"),
    FREE("etcd", "etcd v2: not supported"),
    FREE("consul", "not supported"),
    FREE("zookeeper", "not supported"),
    FREE("exhibitor", "not supported"),
    FREE("kubernetes", "not supported"),
    FREE("raft", "not supported"),
    /* CFG-30 */
    ROW("bootstrap", MAP, NULL, 0, 0, BOOT, NOENV, NULL, "how a new cluster is made; this node may make one"),
    ROW("bootstrap.dcs", MAP, NULL, 0, 0, BOOT, NOENV, NULL, "first dynamic configuration"),
    STR("bootstrap.method", "initdb", BOOT, NOENV, "initdb or a custom section"),
    ROW("bootstrap.initdb", LISTMAP, NULL, 0, 0, BOOT, NOENV, NULL, "options of initdb"),
    ROW("bootstrap.pg_hba", LIST, NULL, 0, 0, BOOT, NOENV, NULL, "lines of pg_hba.conf"),
    STR("bootstrap.post_bootstrap", NULL, BOOT, NOENV, "command run on the new cluster"),
    STR("bootstrap.post_init", NULL, BOOT, NOENV, "older name of post_bootstrap"),
    FREE("bootstrap.users", "removed in Patroni 4.0: ignored"),
    /* CFG-31 */
    ROW("postgresql.listen", ADDR, NULL, 0, 0, PG_RESTART, "POSTGRESQL_LISTEN", NULL, "hosts:port of the server"),
    ROW("postgresql.connect_address", ADDR, NULL, 0, 0, LIVE, "POSTGRESQL_CONNECT_ADDRESS", NULL, "host:port told to the others"),
    ROW("postgresql.proxy_address", ADDR, NULL, 0, 0, LIVE, "POSTGRESQL_PROXY_ADDRESS", NULL, "host:port of a pooler"),
    STR("postgresql.data_dir", NULL, AGENT, "POSTGRESQL_DATA_DIR", "data directory"),
    STR("postgresql.config_dir", NULL, AGENT, "POSTGRESQL_CONFIG_DIR", "directory of postgresql.conf"),
    STR("postgresql.bin_dir", "", AGENT, "POSTGRESQL_BIN_DIR", "directory of the programs; empty = PATH"),
    STR("postgresql.bin_name.pg_ctl", "pg_ctl", LIVE, "POSTGRESQL_BIN_PG_CTL", "program name"),
    STR("postgresql.bin_name.initdb", "initdb", LIVE, "POSTGRESQL_BIN_INITDB", "program name"),
    STR("postgresql.bin_name.pg_controldata", "pg_controldata", LIVE, "POSTGRESQL_BIN_PG_CONTROLDATA", "program name"),
    STR("postgresql.bin_name.pgcontroldata", NULL, LIVE, "POSTGRESQL_BIN_PGCONTROLDATA", "documented spelling of pg_controldata"),
    STR("postgresql.bin_name.pg_basebackup", "pg_basebackup", LIVE, "POSTGRESQL_BIN_PG_BASEBACKUP", "program name"),
    STR("postgresql.bin_name.postgres", "postgres", LIVE, "POSTGRESQL_BIN_POSTGRES", "program name"),
    STR("postgresql.bin_name.pg_isready", "pg_isready", LIVE, "POSTGRESQL_BIN_PG_ISREADY", "program name"),
    STR("postgresql.bin_name.pg_rewind", "pg_rewind", LIVE, "POSTGRESQL_BIN_PG_REWIND", "program name"),
    STR("postgresql.config_base_name", "postgresql", AGENT, NOENV, "base name of the configuration files"),
    STR("postgresql.custom_conf", NULL, LIVE, NOENV, "file included instead of postgresql.base.conf"),
    STR("postgresql.database", "postgres", AGENT, NOENV, "maintenance database"),
    STR("postgresql.pgpass", NULL, AGENT, "POSTGRESQL_PGPASS", "password file that we write"),
    STR("postgresql.krbsrvname", NULL, LIVE, NOENV, "PGKRBSRVNAME"),
    BOOL("postgresql.use_unix_socket", "false", LIVE, NOENV, "local connections by socket"),
    BOOL("postgresql.use_unix_socket_repl", "false", LIVE, NOENV, "local replication connections by socket"),
    STR("postgresql.authentication.superuser.*", NULL, LIVE, NOENV, "CFG-32"),
    STR("postgresql.authentication.replication.*", NULL, LIVE, NOENV, "CFG-32"),
    STR("postgresql.authentication.rewind.*", NULL, LIVE, NOENV, "CFG-32"),
    FREE("postgresql.parameters", "postgresql.conf"),
    FREE("postgresql.parameters_primary", "over parameters while primary"),
    FREE("postgresql.parameters_replica", "over parameters while replica"),
    FREE("postgresql.parameters_standby_leader", "over parameters while standby leader"),
    ROW("postgresql.pg_hba", LIST, NULL, 0, 0, PG_RELOAD, NOENV, NULL, "lines of pg_hba.conf"),
    ROW("postgresql.pg_ident", LIST, NULL, 0, 0, PG_RELOAD, NOENV, NULL, "lines of pg_ident.conf"),
    ROW("postgresql.pg_hba_primary", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_hba while primary"),
    ROW("postgresql.pg_hba_replica", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_hba while replica"),
    ROW("postgresql.pg_hba_standby_leader", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_hba while standby leader"),
    ROW("postgresql.pg_ident_primary", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_ident while primary"),
    ROW("postgresql.pg_ident_replica", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_ident while replica"),
    ROW("postgresql.pg_ident_standby_leader", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "instead of pg_ident while standby leader"),
    FREE("postgresql.recovery_conf", "more recovery settings of standbys"),
    ROW("postgresql.create_replica_methods", LIST, "basebackup", 0, 0, LIVE, NOENV, NULL, "how copies are made"),
    ROW("postgresql.create_replica_method", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "older name of create_replica_methods"),
    ROW("postgresql.basebackup", LISTMAP, NULL, 0, 0, LIVE, NOENV, NULL, "options of pg_basebackup"),
    ROW("postgresql.rewind", LISTMAP, NULL, 0, 0, LIVE, NOENV, NULL, "options of pg_rewind"),
    STR("postgresql.callbacks.on_start", NULL, LIVE, NOENV, "command"),
    STR("postgresql.callbacks.on_stop", NULL, LIVE, NOENV, "command"),
    STR("postgresql.callbacks.on_restart", NULL, LIVE, NOENV, "command"),
    STR("postgresql.callbacks.on_reload", NULL, LIVE, NOENV, "command"),
    STR("postgresql.callbacks.on_role_change", NULL, LIVE, NOENV, "command"),
    STR("postgresql.pre_promote", NULL, LIVE, NOENV, "command run before a promotion"),
    STR("postgresql.before_stop", NULL, LIVE, NOENV, "command run before a stop"),
    BOOL("postgresql.use_pg_rewind", "false", LIVE, NOENV, "rejoin by pg_rewind"),
    BOOL("postgresql.remove_data_directory_on_rewind_failure", "false", LIVE, NOENV, "copy anew when pg_rewind failed"),
    BOOL("postgresql.remove_data_directory_on_diverged_timelines", "false", LIVE, NOENV, "copy anew when timelines diverged"),
    ROW("postgresql.pg_ctl_timeout", DURATION, "60", 0, 0, LIVE, NOENV, NULL, "wait for a start"),
    BOOL("postgresql.use_slots", "true", DYN, NOENV, "replication slots for members"),
    STR("postgresql.name", NULL, AGENT, NOENV, "older place of name"),
    STR("postgresql.scope", NULL, AGENT, NOENV, "ignored"),
    FREE("postgresql.replication", "older place of authentication.replication"),
    FREE("postgresql.superuser", "older place of authentication.superuser"),
    FREE("postgresql.pg_rewind", "older place of the rewind user"),
    /* CFG-35 */
    STR("watchdog.mode", "automatic", LIVE, NOENV, "off, automatic or required"),
    STR("watchdog.device", "/dev/watchdog", LIVE, NOENV, "device"),
    INT("watchdog.safety_margin", "5", 0, 0, LIVE, NOENV, "seconds"),
    STR("watchdog.driver", "default", LIVE, NOENV, "default"),
    /* CFG-36 and CFG-37 */
    FREE("tags", "shown to the others; some have a meaning"),
    ROW("citus.group", ANY, NULL, 0, 0, AGENT, "CITUS_GROUP", NULL, "not supported"),
    STR("citus.database", NULL, AGENT, "CITUS_DATABASE", "not supported"),
    /* CFG-100 */
    ROW("dragent.guard", WORD, "required", 0, 0, LIVE, "GUARD", "required automatic off", "no guard, no lead"),
    ROW("dragent.fence_margin", DURATION, NULL, 0, 0, LIVE, "FENCE_MARGIN", NULL, "time between the end of fencing and the lease's"),
    INT("dragent.clock_drift", "500", 0, 100000, LIVE, "CLOCK_DRIFT", "parts per million"),
    ROW("dragent.handover_after", DURATION, "3", 0, 0, LIVE, "HANDOVER_AFTER", NULL, "how long a crashed primary may take; or off"),
    ROW("dragent.endpoints", LIST, NULL, 0, 0, LIVE, NOENV, NULL, "drivers that tell the world where the primary is"),
    ROW("dragent.probe", ANY, NULL, 0, 0, LIVE, NOENV, NULL, "gray-failure probe"),
};

#define DYN_DUR(p, d, lo, h) ROW(p, DURATION, d, lo, INT64_C(1000000000), DYN, NOENV, NULL, h)
const struct conf_key conf_dynamic_keys[] = {
    DYN_DUR("ttl", "30", 20, "life of the leader key"),
    DYN_DUR("loop_wait", "10", 1, "longest time between two cycles"),
    DYN_DUR("retry_timeout", "10", 3, "how long etcd or PostgreSQL may fail"),
    INT("maximum_lag_on_failover", "1048576", 0, INT64_MAX, DYN, NOENV, "bytes a candidate may be behind"),
    INT("maximum_lag_on_syncnode", "-1", -1, INT64_MAX, DYN, NOENV, "bytes a sync standby may be behind"),
    INT("max_timelines_history", "0", 0, INT64_MAX, DYN, NOENV, "lines kept in the history key"),
    DYN_DUR("primary_start_timeout", "300", 0, "wait for a crashed primary"),
    DYN_DUR("master_start_timeout", NULL, 0, "older name of primary_start_timeout"),
    DYN_DUR("primary_stop_timeout", "0", 0, "longest stop of a primary in synchronous mode"),
    DYN_DUR("master_stop_timeout", NULL, 0, "older name of primary_stop_timeout"),
    DYN_DUR("primary_race_backoff", "0", 0, "wait before a race"),
    ROW("synchronous_mode", ANY, "off", 0, 0, DYN, NOENV, NULL, "on, off or quorum"),
    BOOL("synchronous_mode_strict", "false", DYN, NOENV, "no sync standby, no writes"),
    INT("synchronous_node_count", "1", 1, INT64_MAX, DYN, NOENV, "number of sync standbys"),
    BOOL("pause", "false", DYN, NOENV, "maintenance mode"),
    BOOL("failsafe_mode", "false", DYN, NOENV, "lead without etcd while all members agree"),
    BOOL("check_timeline", "false", DYN, NOENV, "candidates must be on the last timeline"),
    DYN_DUR("member_slots_ttl", "1800", 0, "how long slots of absent members are kept"),
    FREE("slots", "permanent slots"),
    FREE("permanent_slots", "older name of slots"),
    FREE("permanent_replication_slots", "older name of slots"),
    ROW("ignore_slots", LIST, NULL, 0, 0, DYN, NOENV, NULL, "slots that are not ours"),
    ROW("standby_cluster", FREE, NULL, 0, 0, DYN, NOENV, NULL, "this cluster follows another"),
    ROW("postgresql", MAP, NULL, 0, 0, DYN, NOENV, NULL, "as the local section"),
};

size_t conf_local_key_count(void)
{
    return DRA_ARRAY_LEN(conf_local_keys);
}

size_t conf_dynamic_key_count(void)
{
    return DRA_ARRAY_LEN(conf_dynamic_keys);
}

const char *conf_type_to_str(enum conf_type t)
{
    static const char *const names[] = {
        [CONF_T_NONE] = "nothing",    [CONF_T_ANY] = "a value",         [CONF_T_FREE] = "a dictionary",
        [CONF_T_MAP] = "a dictionary", [CONF_T_LIST] = "a list",         [CONF_T_LISTMAP] = "a dictionary|a list",
        [CONF_T_STR] = "a string",    [CONF_T_ADDR] = "a string",       [CONF_T_WORD] = "a string",
        [CONF_T_INT] = "an integer",  [CONF_T_BOOL] = "a boolean",      [CONF_T_SIZE] = "a size",
        [CONF_T_DURATION] = "a number",
    };
    static_assert(DRA_ARRAY_LEN(names) == CONF_TYPE_COUNT, "one name per type");
    return (int)t >= 0 && t < CONF_TYPE_COUNT ? names[t] : "nothing";
}

/* Does `path` match `pattern`, where "*" is any one component?  prefix: it is enough that the pattern goes on below. */
static bool path_matches(const char *pattern, const char *path, bool prefix)
{
    while (*path != '\0') {
        size_t np = strcspn(path, "."), nq = strcspn(pattern, ".");
        bool star = nq == 1 && pattern[0] == '*';
        if (!star && (np != nq || memcmp(path, pattern, np) != 0)) {
            return false;
        }
        path += np;
        pattern += nq;
        if ((*path == '.') != (*pattern == '.')) {
            return prefix && *path == '\0';
        }
        if (*path == '.') {
            path++;
            pattern++;
        }
    }
    return !prefix && *pattern == '\0';
}

static const struct conf_key *find_in(const struct conf_key *table, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++) {
        if (path_matches(table[i].path, path, false)) {
            return &table[i];
        }
    }
    return NULL;
}

/* "bootstrap.dcs.ttl" -> "ttl"; a postgresql section there is the local one. */
static const char *path_in_dynamic(const char *path)
{
    static const char prefix[] = "bootstrap.dcs.";
    return dra_str_starts(path, prefix) ? path + sizeof prefix - 1 : NULL;
}

const struct conf_key *conf_key_find(const char *path)
{
    const char *dynamic = path_in_dynamic(path);
    const struct conf_key *k;
    if (dynamic != NULL) {
        if (dra_str_starts(dynamic, "postgresql.") || dra_str_starts(dynamic, "dragent.")) {
            return find_in(conf_local_keys, conf_local_key_count(), dynamic);
        }
        return find_in(conf_dynamic_keys, conf_dynamic_key_count(), dynamic);
    }
    k = find_in(conf_local_keys, conf_local_key_count(), path);
    if (k == NULL && strchr(path, '.') == NULL) {
        k = find_in(conf_dynamic_keys, conf_dynamic_key_count(), path);
    }
    return k;
}

bool conf_key_has_below(const char *path)
{
    const char *dynamic = path_in_dynamic(path);
    if (dra_str_eq(path, "bootstrap.dcs") || dra_str_eq(path, "bootstrap")) {
        return true;
    }
    if (dynamic != NULL) {
        path = dynamic;
    }
    for (size_t i = 0; i < conf_local_key_count(); i++) {
        if (path_matches(conf_local_keys[i].path, path, true)) {
            return true;
        }
    }
    return false;
}

bool conf_key_is_dynamic(const char *name)
{
    return !dra_str_eq(name, "postgresql") && strchr(name, '.') == NULL &&
           find_in(conf_dynamic_keys, conf_dynamic_key_count(), name) != NULL;
}

bool conf_is_secret(const char *path)
{
    const char *last = strrchr(path, '.');
    last = last == NULL ? path : last + 1;
    return strstr(last, "password") != NULL || dra_str_eq(last, "token") || dra_str_eq(last, "url") || dra_str_eq(last, "proxy");
}
