/*
 * test_conf_env.c - every environment variable of CFG-10 .. CFG-13 and DRAGENT_* (CFG-100).
 */
#include <dragent/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Each row: one variable, where it arrives, and its JSON there (NULL: not there). */
static const struct row {
    const char *var, *path, *want;
} rows[] = {
    {"PATRONI_NAME=n1", "name", "\"n1\""},
    {"PATRONI_SCOPE=demo", "scope", "\"demo\""},
    {"PATRONI_NAMESPACE=/x/", "namespace", "\"/x/\""},
    {"PATRONI_THREAD_POOL_SIZE=7", "thread_pool_size", "7"},
    {"PATRONI_THREAD_STACK_SIZE=1MB", "thread_stack_size", "\"1MB\""},
    {"PATRONI_LOG_TYPE=json", "log.type", "\"json\""},
    {"PATRONI_LOG_LEVEL=DEBUG", "log.level", "\"DEBUG\""},
    {"PATRONI_LOG_TRACEBACK_LEVEL=DEBUG", "log.traceback_level", "\"DEBUG\""},
    {"PATRONI_LOG_FORMAT=%(message)s", "log.format", "\"%(message)s\""},
    {"PATRONI_LOG_FORMAT=asctime, {levelname: lv}", "log.format", "[\"asctime\",{\"levelname\":\"lv\"}]"},
    {"PATRONI_LOG_DATEFORMAT=%H", "log.dateformat", "\"%H\""},
    {"PATRONI_LOG_STATIC_FIELDS=a: b", "log.static_fields", "{\"a\":\"b\"}"},
    {"PATRONI_LOG_STATIC_FIELDS={a: b}", "log.static_fields", "{\"a\":\"b\"}"},
    {"PATRONI_LOG_MAX_QUEUE_SIZE=10", "log.max_queue_size", "10"},
    {"PATRONI_LOG_DIR=/x", "log.dir", "\"/x\""},
    {"PATRONI_LOG_MODE=0644", "log.mode", "420"},
    {"PATRONI_LOG_FILE_SIZE=100", "log.file_size", "100"},
    {"PATRONI_LOG_FILE_NUM=2", "log.file_num", "2"},
    {"PATRONI_LOG_LOGGERS={urllib3: DEBUG}", "log.loggers", "{\"urllib3\":\"DEBUG\"}"},
    {"PATRONI_LOG_DEDUPLICATE_HEARTBEAT_LOGS=on", "log.deduplicate_heartbeat_logs", "true"},
    {"PATRONI_LOGLEVEL=ERROR", "log.level", "\"ERROR\""},
    {"PATRONI_LOGFORMAT=%(message)s", "log.format", "\"%(message)s\""},
    {"PATRONI_LOG_DATEFMT=%M", "log.dateformat", "\"%M\""},
    {"PATRONI_RESTAPI_LISTEN=1.2.3.4:5", "restapi.listen", "\"1.2.3.4:5\""},
    {"PATRONI_RESTAPI_CONNECT_ADDRESS=h:5", "restapi.connect_address", "\"h:5\""},
    {"PATRONI_RESTAPI_USERNAME=u", "restapi.authentication.username", "\"u\""},
    {"PATRONI_RESTAPI_PASSWORD=12", "restapi.authentication.password", "\"12\""},
    {"PATRONI_RESTAPI_CERTFILE=/c", "restapi.certfile", "\"/c\""},
    {"PATRONI_RESTAPI_KEYFILE=/c", "restapi.keyfile", "\"/c\""},
    {"PATRONI_RESTAPI_KEYFILE_PASSWORD=p", "restapi.keyfile_password", "\"p\""},
    {"PATRONI_RESTAPI_CAFILE=/c", "restapi.cafile", "\"/c\""},
    {"PATRONI_RESTAPI_CIPHERS=x", "restapi.ciphers", "\"x\""},
    {"PATRONI_RESTAPI_VERIFY_CLIENT=optional", "restapi.verify_client", "\"optional\""},
    {"PATRONI_RESTAPI_ALLOWLIST=1.1.1.1,10.0.0.0/8", "restapi.allowlist", "[\"1.1.1.1\",\"10.0.0.0/8\"]"},
    {"PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS=true", "restapi.allowlist_include_members", "true"},
    {"PATRONI_RESTAPI_HTTP_EXTRA_HEADERS=X-A: b", "restapi.http_extra_headers", "{\"X-A\":\"b\"}"},
    {"PATRONI_RESTAPI_HTTPS_EXTRA_HEADERS={X-A: b}", "restapi.https_extra_headers", "{\"X-A\":\"b\"}"},
    {"PATRONI_RESTAPI_REQUEST_QUEUE_SIZE=9", "restapi.request_queue_size", "9"},
    {"PATRONI_RESTAPI_THREAD_POOL_SIZE=9", "restapi.thread_pool_size", "9"}, /* CFG-13 */
    {"PATRONI_RESTAPI_SERVER_TOKENS=minimal", "restapi.server_tokens", "\"minimal\""},
    {"PATRONI_CTL_USERNAME=u", "ctl.authentication.username", "\"u\""},
    {"PATRONI_CTL_PASSWORD=p", "ctl.authentication.password", "\"p\""},
    {"PATRONI_CTL_INSECURE=yes", "ctl.insecure", "true"},
    {"PATRONI_CTL_INSECURE=perhaps", "ctl.insecure", NULL},
    {"PATRONI_CTL_CACERT=/c", "ctl.cacert", "\"/c\""},
    {"PATRONI_CTL_CERTFILE=/c", "ctl.certfile", "\"/c\""},
    {"PATRONI_CTL_KEYFILE=/c", "ctl.keyfile", "\"/c\""},
    {"PATRONI_CTL_KEYFILE_PASSWORD=p", "ctl.keyfile_password", "\"p\""},
    {"PATRONI_POSTGRESQL_LISTEN=1.2.3.4:5", "postgresql.listen", "\"1.2.3.4:5\""},
    {"PATRONI_POSTGRESQL_CONNECT_ADDRESS=h:5", "postgresql.connect_address", "\"h:5\""},
    {"PATRONI_POSTGRESQL_PROXY_ADDRESS=h:5", "postgresql.proxy_address", "\"h:5\""},
    {"PATRONI_POSTGRESQL_DATA_DIR=/d", "postgresql.data_dir", "\"/d\""},
    {"PATRONI_POSTGRESQL_CONFIG_DIR=/d", "postgresql.config_dir", "\"/d\""},
    {"PATRONI_POSTGRESQL_BIN_DIR=/d", "postgresql.bin_dir", "\"/d\""},
    {"PATRONI_POSTGRESQL_BIN_PG_CTL=x", "postgresql.bin_name.pg_ctl", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_INITDB=x", "postgresql.bin_name.initdb", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_PG_CONTROLDATA=x", "postgresql.bin_name.pg_controldata", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_PG_BASEBACKUP=x", "postgresql.bin_name.pg_basebackup", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_POSTGRES=x", "postgresql.bin_name.postgres", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_PG_ISREADY=x", "postgresql.bin_name.pg_isready", "\"x\""},
    {"PATRONI_POSTGRESQL_BIN_IS_READY=x", "postgresql.bin_name.pg_isready", "\"x\""}, /* CFG-13 */
    {"PATRONI_POSTGRESQL_BIN_PG_REWIND=x", "postgresql.bin_name.pg_rewind", "\"x\""},
    {"PATRONI_POSTGRESQL_PGPASS=/p", "postgresql.pgpass", "\"/p\""},
    {"PATRONI_POSTGRESQL_PORT=1", "postgresql.port", "1"}, /* CFG-12, side effect */
    {"PATRONI_SUPERUSER_USERNAME=u", "postgresql.authentication.superuser.username", "\"u\""},
    {"PATRONI_SUPERUSER_SSLPASSWORD=u", "postgresql.authentication.superuser.sslpassword", "\"u\""},
    {"PATRONI_REPLICATION_PASSWORD=9", "postgresql.authentication.replication.password", "\"9\""},
    {"PATRONI_REPLICATION_CHANNEL_BINDING=require", "postgresql.authentication.replication.channel_binding", "\"require\""},
    {"PATRONI_REWIND_SSLMODE=require", "postgresql.authentication.rewind.sslmode", "\"require\""},
    {"PATRONI_REWIND_SSLNEGOTIATION=direct", "postgresql.authentication.rewind.sslnegotiation", "\"direct\""},
    {"PATRONI_ETCD3_HOST=h:2379", "etcd3.host", "\"h:2379\""},
    {"PATRONI_ETCD3_HOSTS=host1:2379,host2:2379", "etcd3.hosts", "[\"host1:2379\",\"host2:2379\"]"},
    {"PATRONI_ETCD3_HOSTS=10.0.0.1:2379,10.0.0.2:2379", "etcd3.hosts", "[\"10.0.0.1:2379\",\"10.0.0.2:2379\"]"},
    {"PATRONI_ETCD3_HOSTS=['[::1]:2379','h2:2379']", "etcd3.hosts", "[\"[::1]:2379\",\"h2:2379\"]"},
    {"PATRONI_ETCD3_HOSTS=[::1]:2379,h2:2379", "etcd3.hosts", NULL},
    {"PATRONI_ETCD3_URL=http://h:1", "etcd3.url", "\"http://h:1\""},
    {"PATRONI_ETCD3_PROXY=http://h:1", "etcd3.proxy", "\"http://h:1\""},
    {"PATRONI_ETCD3_SRV=d", "etcd3.srv", "\"d\""},
    {"PATRONI_ETCD3_SRV_SUFFIX=d", "etcd3.srv_suffix", "\"d\""},
    {"PATRONI_ETCD3_USE_PROXIES=1", "etcd3.use_proxies", "true"},
    {"PATRONI_ETCD3_PROTOCOL=https", "etcd3.protocol", "\"https\""},
    {"PATRONI_ETCD3_PORT=99", "etcd3.port", "99"},
    {"PATRONI_ETCD3_CACERT=/c", "etcd3.cacert", "\"/c\""},
    {"PATRONI_ETCD3_CERT=/c", "etcd3.cert", "\"/c\""},
    {"PATRONI_ETCD3_KEY=/c", "etcd3.key", "\"/c\""},
    {"PATRONI_ETCD3_USERNAME=u", "etcd3.username", NULL}, /* CFG-12: alone it does not count */
    {"PATRONI_ETCD3_PASSWORD=u", "etcd3", NULL},
    {"PATRONI_ETCD_HOST=h", "etcd.host", "\"h\""},
    {"PATRONI_CONSUL_HOST=h", "consul.host", "\"h\""},
    {"PATRONI_CONSUL_SCHEME=https", "consul.scheme", "\"https\""}, /* CFG-13 */
    {"PATRONI_CONSUL_CHECKS=a,b", "consul.checks", "[\"a\",\"b\"]"},
    {"PATRONI_CONSUL_REGISTER_SERVICE=on", "consul.register_service", "true"},
    {"PATRONI_CONSUL_VERIFY=off", "consul.verify", "false"},
    {"PATRONI_ZOOKEEPER_SET_ACLS={a: [b]}", "zookeeper.set_acls", "{\"a\":[\"b\"]}"},
    {"PATRONI_EXHIBITOR_POLL_INTERVAL=5", "exhibitor.poll_interval", "\"5\""},
    {"PATRONI_KUBERNETES_LABELS=app: x", "kubernetes.labels", "{\"app\":\"x\"}"},
    {"PATRONI_KUBERNETES_USE_ENDPOINTS=true", "kubernetes.use_endpoints", "true"},
    {"PATRONI_KUBERNETES_BYPASS_API_SERVICE=true", "kubernetes.bypass_api_service", "true"},
    {"PATRONI_KUBERNETES_BOOTSTRAP_LABELS=a: b", "kubernetes.bootstrap_labels", "{\"a\":\"b\"}"},
    {"PATRONI_KUBERNETES_RETRIABLE_HTTP_CODES=500", "kubernetes.retriable_http_codes", "[500]"},
    {"PATRONI_RETRIABLE_HTTP_CODES=500,503", "kubernetes.retriable_http_codes", "[500,503]"}, /* CFG-13 */
    {"PATRONI_RAFT_SELF_ADDR=h:1", "raft.self_addr", "\"h:1\""},
    {"PATRONI_RAFT_PARTNER_ADDRS=h1:2380,h2:2380", "raft.partner_addrs", "[\"h1:2380\",\"h2:2380\"]"},
    {"PATRONI_CITUS_GROUP=0", "citus.group", "0"},
    {"PATRONI_CITUS_DATABASE=d", "citus.database", "\"d\""},
    {"PATRONI_LOG_FILE_NUM=many", "log", NULL},
    {"PATRONI_SCOPE=", "scope", NULL},
    {"PATRONI_WHATEVER=1", "whatever", NULL},
    {"DRAGENT_GUARD=off", "dragent.guard", "\"off\""},
    {"DRAGENT_FENCE_MARGIN=250ms", "dragent.fence_margin", "\"250ms\""},
    {"DRAGENT_CLOCK_DRIFT=100", "dragent.clock_drift", "100"},
    {"DRAGENT_HANDOVER_AFTER=0.5", "dragent.handover_after", "\"0.5\""},
    {"DRAGENT_SCOPE=x", "scope", NULL},
};

static struct json *load(const char *const *vars)
{
    struct conf_env *env = NULL;
    struct json *j = NULL;
    struct dra_err err = {0};
    assert_int_equal(conf_env_from(vars, &env, &err), 0);
    if (conf_load_local(NULL, env, NULL, NULL, &j, &err) != 0) {
        j = NULL;
    }
    conf_env_free(env);
    return j;
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        const char *vars[] = {rows[i].var, "HOME=/x", NULL};
        struct json *j = load(vars);
        const struct json *v = json_find(j, rows[i].path);
        char *text = v == NULL ? NULL : json_print(v);
        if ((text == NULL) != (rows[i].want == NULL) || (text != NULL && strcmp(text, rows[i].want) != 0)) {
            fail_msg("%s: %s", rows[i].var, text == NULL ? "(absent)" : text);
        }
        free(text);
        json_free(j);
    }
}

static void test_rules(void **state)
{
    const char *login[] = {"PATRONI_ETCD3_USERNAME=u", "PATRONI_ETCD3_PASSWORD=p", "PATRONI_ETCD3_HOST=h", NULL};
    const char *older[] = {"PATRONI_LOG_LEVEL=DEBUG", "PATRONI_LOGLEVEL=ERROR", NULL};
    const char *whole[] = {"PATRONI_SCOPE=other", "PATRONI_CONFIGURATION=scope: mine", NULL};
    const char *none[] = {"HOME=/x", NULL};
    struct conf_env *env = NULL;
    struct dra_err err = {0};
    struct json *j = load(login);
    (void)state;
    assert_string_equal(json_text(json_find(j, "etcd3.username")), "u");
    assert_string_equal(json_text(json_find(j, "etcd3.password")), "p");
    json_free(j);
    j = load(older);
    assert_string_equal(json_text(json_find(j, "log.level")), "DEBUG");
    json_free(j);
    j = load(whole);
    assert_string_equal(json_text(json_get(j, "scope")), "mine");
    json_free(j);
    assert_int_equal(conf_env_from(none, &env, &err), 0);
    assert_true(conf_load_local(NULL, env, NULL, NULL, &j, &err) < 0);
    assert_string_equal(err.msg, "Config is empty.");
    conf_env_free(env);
}

/* CFG-10: recognised variables leave the environment, others stay; the captured ones can be put back. */
static void test_capture(void **state)
{
    struct conf_env *env = NULL;
    struct dra_err err = {0};
    (void)state;
    assert_int_equal(setenv("PATRONI_SUPERUSER_PASSWORD", "secret", 1), 0);
    assert_int_equal(setenv("PATRONI_MY_OWN", "kept", 1), 0);
    assert_int_equal(setenv("DRAGENT_GUARD", "off", 1), 0);
    assert_int_equal(conf_env_capture(&env, &err), 0);
    assert_null(getenv("PATRONI_SUPERUSER_PASSWORD"));
    assert_null(getenv("DRAGENT_GUARD"));
    assert_string_equal(getenv("PATRONI_MY_OWN"), "kept");
    assert_int_equal(conf_env_count(env), 2);
    assert_non_null(strchr(conf_env_at(env, 0), '='));
    assert_null(conf_env_at(env, 2));
    conf_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_capture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
