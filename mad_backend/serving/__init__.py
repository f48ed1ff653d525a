"""Answers of the promoted target model for tasks of any Label Studio project; knows nothing of HTTP."""
