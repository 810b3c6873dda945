"""What `gateway dev` prints: plain lines that no terminal or log wraps, and each command alone on its line. Pure."""

from gateway.dev.place import Example, Place


def welcome(place: Place, examples: tuple[Example, ...], data_dir: str, remarks: tuple[str, ...] = ()) -> list[str]:
    """Write the lines that greet; commands start at the margin and can be pasted."""
    lines = ["", *remarks]
    lines += [
        "Actorgate is running. Open this page:",
        f"  {place.issuer_url}/",
        f"Gateway   {place.gateway_url}",
        f"Upstream  {place.upstream_url}{' (demo: shows what reached it)' if place.demo else ''}",
        f"Issuer    {place.issuer_url} (stands in for Clerk)",
        f"Admin     {place.admin_url}",
        f"Data      {data_dir}",
        "",
    ]
    for example in examples:
        lines += [f"# {example.title}", example.command, ""]
    return [*lines, "Ctrl-C ends it."]
