#!/usr/bin/env python3
"""The judge of the cluster cases is judged: made-up logs with known faults. Part of tests/run unit."""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy"))

from lab import clients, proc, yamlout  # noqa: E402

S = clients.NS


def row(n, sent, done, host="a", timeline=1, client=1):
    return clients.Row(client, n, int(sent * S), int(done * S), host, timeline)


class FakeWriter(clients.Writer):
    def __init__(self, log, client=1):  # pylint: disable=super-init-not-called
        self.log, self.client = log, client
        self._parsed, self._offset = {"ack": [], "unknown": [], "refused": []}, 0


class FakeNode:
    def __init__(self, found):
        self.found = found

    def sql(self, *_args, **_kwargs):
        return [[str(c), str(n)] for c, n in self.found]


class Outage(unittest.TestCase):
    def test_longest_gap_that_touches_the_time(self):
        rows = [row(i, t, t) for i, t in enumerate([1, 2, 2.5, 9, 9.1, 10])]
        self.assertAlmostEqual(clients.outage(rows, 3), 6.5)
        self.assertAlmostEqual(clients.outage(rows, 9.05), 0.9)
        self.assertAlmostEqual(clients.outage(rows, 0, 2.4), 1.0)

    def test_none_if_nothing_came_after(self):
        self.assertIsNone(clients.outage([row(1, 1, 1)], 2))
        self.assertIsNone(clients.outage([], 2))


class Interleavings(unittest.TestCase):
    def test_a_clean_hand_over(self):
        self.assertEqual(clients.interleavings(
            [row(1, 1, 1.1), row(2, 2, 2.1), row(3, 3, 3.1, "b", 2), row(4, 4, 4.1, "b", 2)]), [])

    def test_old_row_sent_after_the_first_of_the_new(self):
        wrong = clients.interleavings([row(1, 1, 1.1), row(2, 3.2, 3.3), row(3, 3, 3.1, "b", 2)])
        self.assertEqual(len(wrong), 1)
        self.assertIn("sent 100.0 ms after b", wrong[0])

    def test_an_answer_that_is_only_read_late_is_no_fault(self):
        self.assertEqual(clients.interleavings([row(1, 2.9, 3.5), row(2, 3, 3.1, "b", 2)]), [])

    def test_one_timeline_on_two_servers(self):
        wrong = clients.interleavings([row(1, 1, 1.1, "a", 2), row(2, 2, 2.1, "b", 2)])
        self.assertEqual(wrong, ["timeline 2 was acknowledged by a and b"])


class Judge(unittest.TestCase):
    def setUp(self):
        self.file = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.addCleanup(self.file.close)

    def log(self, text):
        self.file.write(text)
        self.file.flush()
        return FakeWriter(self.file.name)

    def test_lost_row(self):
        w = self.log("connected 1 a\nack 1 10 20 a 00000001 0/1\nack 2 30 40 a 00000001 0/2\n"
                     "unknown 3 50 60 a timeout\nrefused 4 70 80 a 25006\n")
        v = clients.judge([w], FakeNode([(1, 1), (1, 3)]))
        self.assertEqual([r.n for r in v.lost], [2])
        self.assertEqual((len(v.acked), len(v.unknown), len(v.refused)), (2, 1, 1))

    def test_a_line_that_is_not_whole_yet_is_read_later(self):
        w = self.log("ack 1 10 20 a 0000000A 0/1\nack 2 30 ")
        self.assertEqual([r.n for r in w.rows()], [1])
        self.log("40 a 0000000A 0/2\n")
        self.assertEqual([(r.n, r.done, r.timeline) for r in w.rows()], [(1, 20, 10), (2, 40, 10)])


class Tools(unittest.TestCase):
    def test_yaml(self):
        self.assertEqual(yamlout.dump({"a": {"b": True, "c": "on", "d": []}, "e": ["x y", {"k": 1}]}),
                         "a:\n  b: true\n  c: 'on'\n  d: []\ne:\n- 'x y'\n- k: 1\n")

    def test_a_reused_pid_is_not_signalled(self):
        self.assertFalse(proc.send(os.getpid(), 0, started=proc.start_time(os.getpid()) + 1))
        self.assertTrue(proc.send(os.getpid(), 0, started=proc.start_time(os.getpid())))
        self.assertFalse(proc.send(os.getpid(), 0, check=lambda pid: False))


if __name__ == "__main__":
    unittest.main()
