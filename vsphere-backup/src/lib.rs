//! Back up and restore vSphere virtual machines: engine and repository.
