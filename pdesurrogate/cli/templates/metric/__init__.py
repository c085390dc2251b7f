"""A metric of one's own, used by the class path ``pdesurrogate.cli.templates.metric.metric.TemplateMetric``."""
