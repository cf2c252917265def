"""What arguments of the logger, of top and of --check have in common: privileges, descriptors, what is looked at."""

import os
import resource

from nfct_fast.kernel.program_user import find_user
from nfct_fast.processes.redactor import DEFAULT_REDACTIONS
from nfct_fast.rights import Rights


def allow_descriptors(arguments) -> None:
    """With --netns all, raise the limit of descriptors to the maximum: hundreds of namespaces take thousands."""
    if arguments.netns != "all":
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def rights_of(arguments) -> Rights:
    """Return the privileges that the arguments say to give up. ValueError if they contradict each other."""
    find_owners = (arguments.attribution != "off" or arguments.netns == "all") and arguments.replay is None
    if arguments.no_sandbox:
        if arguments.user is not None:
            raise ValueError("--user and --no-sandbox exclude each other")
        return Rights(find_owners=find_owners)
    wanted = arguments.user is not None or os.geteuid() == 0
    try:
        return Rights(
            user=find_user(arguments.user) if wanted else None,
            filter_calls=True,
            find_owners=find_owners,
            use_helpers=find_owners,
        )
    except LookupError as error:
        raise ValueError(str(error)) from None


def common_options(arguments, rights) -> dict:
    """Return arguments of Conntrack and of list_flows: which flows, where, what is shown of them, and the Rights."""
    return dict(
        protocol=arguments.protocol,
        filter=" ".join(arguments.filter),
        attribution=arguments.attribution,
        netns=arguments.netns,
        cmdline=not arguments.no_cmdline,
        redact=(*arguments.redact, *(DEFAULT_REDACTIONS if arguments.redact_defaults else ())),
        drop_privileges=rights,
    )
