//! Changed block tracking of VMware vSphere: change ids, changed areas, range algebra.
