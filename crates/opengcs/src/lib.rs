//! Linux utility VMs for container hosts.
