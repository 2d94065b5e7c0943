"""scrfd_ros beside what a user would take instead: `scrfd bench --peers`, docs/performance.md."""
