(module $m (func $"\1b[2J" (export "_start") unreachable))
