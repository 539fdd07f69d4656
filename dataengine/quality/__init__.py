"""Is a dataset true, and what does it cover?"""
