-- The engine is Lua 5.1 with a few globals; `server` exists only on newer Valkey, so nothing may use it.
std = 'lua51'
read_globals = { 'redis', 'cjson', 'cmsgpack' }
max_line_length = 110
max_cyclomatic_complexity = 10
unused_args = false
exclude_files = { 'tests/upgrade/**' }
