"""The choice of the network namespaces that are monitored, as they come and go, and the notices for an operator.

It opens sources through the SourceOpener that it is given; it does not read events.
"""
