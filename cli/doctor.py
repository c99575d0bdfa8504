"""``pyg-lth doctor``: what this machine has, and what to mend."""

import dataclasses
import json

import click

from pyg_lth.cli.streams import say


@click.command()
@click.option("--root", default="data", help="Folder that holds the data sets.  [default: data]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(root: str, as_json: bool) -> None:
    """Show versions, device, propagation backends, plugins and which data sets are ready."""
    from pyg_lth import kernels
    from pyg_lth.datasets import list_datasets
    from pyg_lth.results.environment import check_backends, describe_environment
    from pyg_lth.strategies import plugins

    environment, backends = describe_environment(), check_backends()
    ready = [entry["name"] for entry in list_datasets(root) if entry["ready"]]
    if as_json:
        found = [dataclasses.asdict(plugin) for plugin in plugins()]
        findings = {
            **environment,
            "propagation": backends,
            "plugins": found,
            "datasets_ready": ready,
        }
        say(json.dumps(findings, indent=2))
        return
    packages = environment["packages"]
    gpu = environment["gpu"]
    lines = {
        **packages,
        "python": environment["python"],
        "platform": environment["platform"],
        "device": f"{gpu} (CUDA {environment['cuda']})" if gpu else "CPU (torch sees no GPU)",
        "threads": environment["threads"],
        "kernels": "compiled" if environment["native_kernels"] else kernels.MISSING,
        "memory": f"{environment['memory'] / 2**30:.1f} GiB",
        **{f"propagation {name}": finding for name, finding in backends.items()},
        **{
            f"plugin {plugin.name}": f"{plugin.distribution}: {plugin.error or 'ok'}"
            for plugin in plugins()
        },
        f"data sets ready in {root}": ", ".join(ready),
    }
    width = max(len(name) for name in lines)
    for name, value in lines.items():
        say(f"{name:<{width}}  {value}")
