(module (table 1 funcref) (elem (i32.const 9) $f) (func $f) (func (export "_start")))
