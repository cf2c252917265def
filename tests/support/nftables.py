"""The nftables rules of a namespace."""

import json
import subprocess

from support.cli import inside


def ruleset(netns):
    output = subprocess.run(inside(netns, ["nft", "-j", "list", "ruleset"]), check=True, capture_output=True).stdout
    return json.loads(output)["nftables"]


def tables(netns):
    return [thing["table"]["name"] for thing in ruleset(netns) if "table" in thing]
