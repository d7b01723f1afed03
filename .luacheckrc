std = 'lua51'
read_globals = { 'redis', 'cjson', 'cmsgpack' }
max_line_length = 120
max_cyclomatic_complexity = 10
