from pyg_lth.sweeps.processes import Watcher


class Notes(Watcher):
    """Notes all that it hears."""

    def __init__(self):
        self.heard = []

    def on_start(self, name):
        self.heard.append((name, "start"))

    def on_line(self, name, line):
        self.heard.append((name, line))

    def on_loss(self, name):
        self.heard.append((name, "loss"))

    def on_end(self, name, outcome):
        self.heard.append((name, outcome))

    def on_interrupt(self):
        self.heard.append(("", "interrupt"))
