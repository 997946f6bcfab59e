(module (func $f (export "_start") (return_call $g)) (func $g (return_call $f)))
