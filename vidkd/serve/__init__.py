"""Detection as a service: videos by HTTP, results as JSON and as a page."""
