"""The sandbox host: on one machine it owns every sandbox's processes, as the kubelet does on a cluster."""
