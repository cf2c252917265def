"""Which network namespaces are monitored as they come and go, and the notices for an operator.

It opens sources in them by the SourceOpener it is given; it does not read events.
"""
