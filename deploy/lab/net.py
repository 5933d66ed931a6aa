"""Hosts as network namespaces on one bridge, and the ways to cut them off.

    PREFIX-sw          the bridge
    PREFIX-HOST        one host: eth0 with an address, its own loopback, an nftables set of senders
                       from which nothing arrives ("cut")

Nothing is added to the machine's own network.
"""

import os

from . import proc

NETNS_DIR = "/run/netns"
CUT_RULES = ("add table ip lab; add set ip lab cut { type ipv4_addr; }; "
             "add chain ip lab pre { type filter hook prerouting priority -300; }; "
             "add rule ip lab pre ip saddr @cut drop")


class Net:
    def __init__(self, number):
        self.number = number
        self.prefix = f"dra{number}"
        self.subnet = f"10.77.{number}"
        self.switch = f"{self.prefix}-sw"
        self.addresses = {}

    def ns(self, host):
        return f"{self.prefix}-{host}"

    def path(self, host):
        return f"{NETNS_DIR}/{self.ns(host)}"

    def inode(self, host):
        return os.stat(self.path(host)).st_ino

    def build(self, hosts):
        """hosts: name -> last byte of the address."""
        proc.run(["ip", "netns", "add", self.switch])
        proc.run(["ip", "-n", self.switch, "link", "add", "br0", "type", "bridge"])
        proc.run(["ip", "-n", self.switch, "link", "set", "br0", "up"])
        for host, byte in hosts.items():
            self._add_host(host, byte)

    def _add_host(self, host, byte):
        ns, port = self.ns(host), f"p-{host}"
        address = f"{self.subnet}.{byte}"
        self.addresses[host] = address
        proc.run(["ip", "netns", "add", ns])
        proc.run(["ip", "-n", self.switch, "link", "add", port, "type", "veth",
                  "peer", "name", "eth0", "netns", ns])
        proc.run(["ip", "-n", self.switch, "link", "set", port, "master", "br0", "up"])
        proc.run(["ip", "-n", ns, "link", "set", "lo", "up"])
        proc.run(["ip", "-n", ns, "link", "set", "eth0", "up"])
        proc.run(["ip", "-n", ns, "address", "add", f"{address}/24", "dev", "eth0"])
        proc.run(self.inside(host, ["nft", CUT_RULES]))

    def inside(self, host, argv):
        """The command line that runs argv in the host's namespace, under the same pid."""
        return ["nsenter", f"--net={self.path(host)}", "--"] + argv

    def link(self, host, up):
        """Pull or plug the host's cable (at the bridge, so that it sees its carrier go)."""
        proc.run(["ip", "-n", self.switch, "link", "set", f"p-{host}", "up" if up else "down"])

    def drop(self, sender, receiver):
        """Nothing that sender sends arrives at receiver (one way)."""
        proc.run(self.inside(receiver, ["nft", "add element ip lab cut { %s }"
                                        % self.addresses[sender]]))

    def cut(self, host, others, both_ways=True):
        """Others no longer hear host; and host no longer hears them, if both_ways."""
        for other in others:
            self.drop(host, other)
            if both_ways:
                self.drop(other, host)

    def heal(self):
        """Every cut is gone, every cable in."""
        for host in self.addresses:
            proc.run(self.inside(host, ["nft", "flush set ip lab cut"]))
            self.link(host, True)


def left_overs(prefix):
    try:
        names = os.listdir(NETNS_DIR)
    except FileNotFoundError:
        return []
    return sorted(n for n in names if n.startswith(prefix + "-"))


def remove(prefix, exclude=()):
    """End all processes of the lab's namespaces, then take the namespaces away."""
    names = left_overs(prefix)
    for name in names:
        proc.kill_netns(os.stat(f"{NETNS_DIR}/{name}").st_ino, exclude)
    for name in names:
        proc.run(["ip", "netns", "del", name], check=False)
