"""
From a log to answers over HTTP
===============================

This page takes a table of interactions as you might have it, finds a ticket in it, writes the
ticket to one small file, and answers from that file: on the command line, in Python and over HTTP.
It was run when it was built, and what stands under each step is what it printed.
"""

# %%
# Everything below goes to a new folder, which you may delete afterwards. Commands are run in it.

import subprocess
import tempfile
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from pyg_lth.tickets import Ticket

work = Path(tempfile.mkdtemp(prefix="pyg-lth-"))


def run(command: str) -> None:
    """Run a command as in a terminal, and show what it prints."""
    done = subprocess.run(command, shell=True, cwd=work, capture_output=True, text=True, check=True)
    print(done.stdout + done.stderr)


# %%
# A log of one's own
# ------------------
#
# Here it is made up: listeners with a taste for one of four genres, and songs of which some are
# much more popular than others. Yours comes from a database; a row is an interaction, and ids
# are what they are there.

random = np.random.default_rng(0)
genres = ["folk", "jazz", "punk", "soul"]
songs = np.array([f"{genre}-{number:02d}" for genre in genres for number in range(60)])
popularity = np.tile(1 / (10 + np.arange(60)), 4)
rows = []
for listener in range(800):
    taste = np.repeat(np.where(np.arange(4) == listener % 4, 20.0, 1.0), 60)
    weight = popularity * taste / (popularity * taste).sum()
    for song in random.choice(songs, 24, replace=False, p=weight):
        rows.append({"listener": f"listener {listener}", "song": song})
log = pd.DataFrame(rows)
log.to_parquet(work / "log.parquet")
print(log.sample(5, random_state=0))

# %%
# Find a ticket
# -------------
#
# The file is split into train, validation and test, a model is trained on it, pruned and trained
# again. With a log of your own leave out ``--lr`` and ``--patience``, which are for this tiny
# one.

run(
    "pyg-lth prune --dataset log.parquet --user-col listener --item-col song --model mf"
    " --rounds 6 --amount 0.3 --lr 0.01 --patience 5 --tolerance 0.05 --out runs/songs --quiet"
)

# %%
# Write it to a file
# ------------------
#
# The fourth round (without ``--round`` it is the sparsest that wins), with values in two bytes
# each. The file holds what answering needs: the entries that are left, ids, and what each
# listener has had already.

run("pyg-lth export runs/songs --round 4 --values float16 --out songs.ticket")
run("pyg-lth inspect songs.ticket")

# %%
# Ask it
# ------
#
# On the command line:

run("pyg-lth recommend songs.ticket --user 'listener 2' -k 5")

# %%
# In Python, with numpy alone. Someone who was not there when the model was trained is embedded
# by the songs that they have.

ticket = Ticket.load(work / "songs.ticket")
print(ticket.recommend_for(["jazz-03", "jazz-17", "jazz-40"], k=5).items)
print(ticket.similar("punk-05", k=3))

# %%
# Over HTTP
# ---------
#
# ``pyg-lth serve`` answers until it is told to end. ``--port 0`` takes any port that is free, so
# that this page can be built anywhere; without it the port is 8000.

server = subprocess.Popen(
    ["pyg-lth", "serve", "songs.ticket", "--port", "0"],
    cwd=work,
    stderr=subprocess.PIPE,
    text=True,
)
line = server.stderr.readline()
url = line.split(" on ")[1].split()[0]

with httpx.Client(base_url=url, timeout=30) as client:
    print(client.get("/recommend", params={"user": "listener 2", "k": 3}).json())
    asked = {"history": ["jazz-03", "jazz-17"], "k": 3}
    print(client.post("/recommend", json=asked).json())
    print(client.get("/recommend", params={"user": "a stranger", "k": 3}).json())
    refused = client.get("/similar", params={"item": "polka-01"})
    print(refused.status_code, refused.json())
    print(client.get("/health").json())

# %%
# SIGTERM or Ctrl-C end it, once what has begun is answered.

server.terminate()
print("exit code", server.wait())

# %%
# What next
# ---------
#
# * Several workers, bounds, metrics and other formats (ONNX, faiss, usearch, Hugging Face):
#   :doc:`/serving`.
# * What a ticket weighs, and LightGCN's three storages: :doc:`/tickets`.
# * What else a log may look like: :doc:`/data`.
