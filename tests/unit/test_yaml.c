/*
 * test_yaml.c - YAML 1.1 scalars (CFG-03), structure, places, limits, and the dump (CLI-25).
 */
#include <dragent/text.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json *load(const char *s)
{
    struct json *j = NULL;
    struct dra_err err = {0};

    if (yaml_acc_load("t.yml", s, strlen(s), &j, &err) != 0) {
        fail_msg("%s: %s", s, err.msg);
    }
    return j;
}

static void print_is(const char *yaml, const char *want)
{
    DRA_CLEANUP(json_freep) struct json *j = load(yaml);
    char *text = json_print(j);

    assert_non_null(text);
    if (strcmp(text, want) != 0) {
        fail_msg("row \"%s\": got %s, want %s", yaml, text, want);
    }
    free(text);
}

static void scalars(void **state)
{
    static const struct {
        const char *yaml, *json;
    } rows[] = {
        {"yes", "true"},         {"Yes", "true"},        {"YES", "true"},       {"on", "true"},
        {"True", "true"},        {"off", "false"},       {"No", "false"},       {"FALSE", "false"},
        {"yEs", "\"yEs\""},      {"y", "\"y\""},         {"n", "\"n\""},        {"'yes'", "\"yes\""},
        {"0644", "420"},         {"0o644", "\"0o644\""}, {"0x1f", "31"},        {"0X1f", "\"0X1f\""},
        {"1_000", "1000"},       {"12:30", "750"},       {"190:20:30", "685230"}, {"1e3", "\"1e3\""},
        {"1.0e+3", "1000.0"},    {"1.0e3", "\"1.0e3\""}, {"0b101", "5"},        {"-0b11", "-3"},
        {"0", "0"},              {"-0", "0"},            {"+7", "7"},           {"-12", "-12"},
        {"08", "\"08\""},        {"09:30", "\"09:30\""}, {"12:60", "\"12:60\""}, {"1.", "1.0"},
        {".5", "0.5"},           {"-.5", "\"-.5\""},     {"1.5", "1.5"},        {"0.1", "0.1"},
        {"1_0.2_5", "10.25"},    {"1:30.5", "90.5"},     {"1.2.3", "\"1.2.3\""}, {"10.0.0.1", "\"10.0.0.1\""},
        {"~", "null"},           {"null", "null"},       {"NULL", "null"},      {"", "null"},
        {"nULL", "\"nULL\""},    {"2026-03-01", "\"2026-03-01\""}, {".inf", "\".inf\""}, {".nan", "\".nan\""},
        {"9223372036854775807", "9223372036854775807"},
        {"18446744073709551616", "18446744073709551616"},
        {"7587848094190927361", "7587848094190927361"},
        {"!!str 123", "\"123\""}, {"!!int '12'", "12"},  {"!!bool 'on'", "true"}, {"! 12", "\"12\""},
        {"+", "\"+\""},          {"-x", "\"-x\""},       {"0x", "\"0x\""},      {"0b", "\"0b\""},
        {"_1", "\"_1\""},        {"1__0", "10"},         {"host:5432", "\"host:5432\""},
        {"127.0.0.1:5432", "\"127.0.0.1:5432\""},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        print_is(rows[i].yaml, rows[i].json);
    }
}

static void structure(void **state)
{
    static const struct {
        const char *yaml, *json;
    } rows[] = {
        {"a: 1\nb:\n- x\n-  - y\n   - z\n", "{\"a\":1,\"b\":[\"x\",[\"y\",\"z\"]]}"},
        {"{a: [1, 2], b: {c: d}}", "{\"a\":[1,2],\"b\":{\"c\":\"d\"}}"},
        {"a: 1\nb: 2\na: 3\n", "{\"a\":3,\"b\":2}"},
        {"x: &a {k: 1, l: 2}\ny: *a\n", "{\"x\":{\"k\":1,\"l\":2},\"y\":{\"k\":1,\"l\":2}}"},
        {"x: &a {k: 1, l: 2}\ny:\n  l: 3\n  <<: *a\n", "{\"x\":{\"k\":1,\"l\":2},\"y\":{\"k\":1,\"l\":3}}"},
        {"- &a {k: 1}\n- &b {k: 2, m: 3}\n- <<: [*a, *b]\n", "[{\"k\":1},{\"k\":2,\"m\":3},{\"k\":1,\"m\":3}]"},
        {"- &a 1\n- &a 2\n- *a\n", "[1,2,2]"},
        {"a:\nb:\n", "{\"a\":null,\"b\":null}"},
        {"a: |\n  one\n  two\nb: >-\n  one\n  two\n", "{\"a\":\"one\\ntwo\\n\",\"b\":\"one two\"}"},
        {"a: \"\\u00e9\\n\"\nb: 'it''s'\n", "{\"a\":\"\xC3\xA9\\n\",\"b\":\"it's\"}"},
        {"on: 1\n0644: 2\n", "{\"on\":1,\"0644\":2}"}, /* keys are names: their text counts */
        {"---\na: 1\n...\n", "{\"a\":1}"},
        {"# only a comment\n", "null"},
        {"", "null"},
        {"'<<': 1", "{\"<<\":1}"},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        print_is(rows[i].yaml, rows[i].json);
    }
}

static void bad_documents(void **state)
{
    static const struct {
        const char *yaml, *msg;
    } rows[] = {
        {"a: 1\n b: 2\n", "t.yml:2: "},
        {"a: [1, 2\n", "t.yml:2: "},
        {"a: *nope\n", "t.yml:1: undefined alias"},
        {"a: &a [*a]\n", "t.yml:1: undefined alias"},
        {"\n\na: !custom 1\n", "t.yml:3: custom tags are not allowed"},
        {"a: !!python/object:os.system {}\n", "t.yml:1: custom tags are not allowed"},
        {"a: !!set {}\n", "t.yml:1: custom tags are not allowed"},
        {"a: !!int x\n", "t.yml:1: the value does not fit its tag"},
        {"? [1]\n: 2\n", "t.yml:1: a key must be a scalar"},
        {"a: 1\n---\nb: 2\n", "t.yml:2: expected a single document"},
        {"a: \"x\\0y\"\n", "t.yml:1: NUL character"},
        {"a: 1\n<<: 2\n", "t.yml:2: expected a mapping"},
        {"a: 'open\n", "t.yml:"},
        {"a:\tb: c\n", "t.yml:"},
        {"a: \xFF\n", "t.yml:"},
        {"a: @x\n", "t.yml:1: "},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = NULL;
        struct dra_err err = {0};

        if (yaml_acc_load("t.yml", rows[i].yaml, strlen(rows[i].yaml), &j, &err) != DRA_EPARSE) {
            fail_msg("row \"%s\" was taken", rows[i].yaml);
        }
        if (!dra_str_starts(err.msg, rows[i].msg)) {
            fail_msg("row \"%s\": %s", rows[i].yaml, err.msg);
        }
    }
}

static void limits(void **state)
{
    struct dra_buf b;
    struct json *j = NULL;

    (void)state;
    dra_buf_init(&b, 10000000);
    dra_buf_adds(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"); /* a billion laughs */
    for (int i = 1; i < 10; i++) {
        dra_buf_addf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1,
                     i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    }
    assert_int_equal(yaml_acc_load("t.yml", b.p, b.len, &j, NULL), DRA_EPARSE);
    dra_buf_reset(&b);
    for (int i = 0; i < 200; i++) {
        dra_buf_adds(&b, "[");
    }
    assert_int_equal(yaml_acc_load("t.yml", b.p, b.len, &j, NULL), DRA_EPARSE);
    dra_buf_reset(&b);
    for (int i = 0; i < 5000; i++) {
        dra_buf_addf(&b, "k%d: 1\n", i);
    }
    assert_int_equal(yaml_acc_load("t.yml", b.p, b.len, &j, NULL), DRA_EPARSE);
    dra_buf_reset(&b);
    while (b.len < (size_t)5 << 20) {
        dra_buf_adds(&b, "# a comment that goes on and on and on\n");
    }
    assert_int_equal(yaml_acc_load("t.yml", b.p, b.len, &j, NULL), DRA_ETOOLONG);
    dra_buf_deinit(&b);
    assert_null(j);
}

static void places(void **state)
{
    DRA_CLEANUP(json_freep)
    struct json *j = load("scope: demo\nha:\n  ttl: 0644\n  wal: 'on'\n  maxl: 1_000\nbad:\n  - yes\n");
    char text[32];
    int64_t v = 0;
    struct dra_err err = {0};

    (void)state;
    assert_int_equal(json_line(json_find(j, "ha.ttl")), 3);
    assert_string_equal(json_file(json_find(j, "ha.ttl")), "t.yml");
    assert_true(json_source_text(json_find(j, "ha.ttl"), text, sizeof text));
    assert_string_equal(text, "0644");
    assert_true(json_source_text(json_find(j, "ha.maxl"), text, sizeof text));
    assert_string_equal(text, "1_000");
    assert_true(json_source_text(json_find(j, "ha.wal"), text, sizeof text));
    assert_string_equal(text, "on");
    assert_true(json_source_text(json_find(j, "bad[0]"), text, sizeof text));
    assert_string_equal(text, "yes");
    assert_true(json_scalar_text(json_find(j, "bad[0]"), text, sizeof text));
    assert_string_equal(text, "true");
    assert_int_equal(json_i64(j, "bad[0]", &v, &err), DRA_ETYPE);
    assert_string_equal(err.msg, "t.yml:7: bad[0]: want an integer, got yes");
    assert_int_equal(json_i64(j, "nope", &v, &err), DRA_ENOTFOUND);
    assert_string_equal(err.msg, "t.yml:1: nope: want an integer, got nothing");
}

/* Each row was printed by PyYAML's safe_dump(default_flow_style=False, width=200, allow_unicode=True). */
static void dumps(void **state)
{
    static const struct {
        const char *json, *yaml;
    } rows[] = {
        {"{\"b\":1,\"a\":{\"z\":true,\"y\":null}}", "a:\n  y: null\n  z: true\nb: 1\n"},
        {"{\"l\":[1,{\"k\":\"v\",\"j\":2},[3,4]]}", "l:\n- 1\n- j: 2\n  k: v\n- - 3\n  - 4\n"},
        {"{\"a\":\"on\",\"b\":\"123\",\"c\":\"2026-03-01\",\"d\":\"\",\"e\":\"yes\",\"f\":\"null\",\"g\":\"~\"}",
         "a: 'on'\nb: '123'\nc: '2026-03-01'\nd: ''\ne: 'yes'\nf: 'null'\ng: '~'\n"},
        {"{\"a\":\"y\",\"b\":\"1e3\",\"c\":\"12:30\",\"d\":\"0o7\",\"e\":\".inf\",\"f\":\"1.5\",\"g\":\"<<\",\"h\":\"=\"}",
         "a: y\nb: 1e3\nc: '12:30'\nd: 0o7\ne: '.inf'\nf: '1.5'\ng: '<<'\nh: '='\n"},
        {"{\"a\":\"it's\",\"b\":\"a: b\",\"c\":\"# x\",\"d\":\"- x\",\"e\":\" x\",\"f\":\"x \",\"g\":\"a#b\",\"h\":\"%x\"}",
         "a: it's\nb: 'a: b'\nc: '# x'\nd: '- x'\ne: ' x'\nf: 'x '\ng: a#b\nh: '%x'\n"},
        {"{\"a\":\"one\\ntwo\\n\",\"b\":\"\\t\"}", "a: 'one\n\n  two\n\n  '\nb: \"\\t\"\n"},
        {"{\"a\":{},\"b\":[]}", "a: {}\nb: []\n"},
        {"{\"a\":1.5,\"b\":1e3,\"c\":1e20,\"d\":7587848094190927361}",
         "a: 1.5\nb: 1000.0\nc: 1.0e+20\nd: 7587848094190927361\n"},
        {"{\"on\":1,\"12\":2}", "'12': 2\n'on': 1\n"},
        {"{\"a\":\"\xC3\xA9t\xC3\xA9\"}", "a: \xC3\xA9t\xC3\xA9\n"},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = NULL;
        DRA_CLEANUP(json_freep) struct json *again = NULL;
        struct dra_buf b;

        assert_int_equal(json_parse(rows[i].json, strlen(rows[i].json), &j, NULL), 0);
        dra_buf_init(&b, 10000);
        yaml_acc_dump(j, &b);
        assert_false(b.failed);
        assert_string_equal(dra_buf_str(&b), rows[i].yaml);
        again = load(dra_buf_str(&b)); /* and it reads back as the same */
        if (!json_equal_text(j, again)) {
            fail_msg("row %s does not read back", rows[i].json);
        }
        dra_buf_deinit(&b);
        json_free(j);
    }
}

static void dump_limit(void **state)
{
    DRA_CLEANUP(json_freep) struct json *j = load("a: some text that is longer than the buffer\n");
    struct dra_buf b;

    (void)state;
    dra_buf_init(&b, 10);
    yaml_acc_dump(j, &b);
    assert_true(b.failed);
    dra_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars), cmocka_unit_test(structure), cmocka_unit_test(bad_documents),
        cmocka_unit_test(limits),  cmocka_unit_test(places),    cmocka_unit_test(dumps),
        cmocka_unit_test(dump_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
