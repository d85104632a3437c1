//! Which `VMBus` device is which SCSI controller of a utility VM on Hyper-V.

/// The `VMBus` instance GUIDs of SCSI controllers 0 to 3, in order.
pub const CONTROLLERS: [&str; 4] = [
    "df6d0690-79e5-55b6-a5ec-c1e2f77f580a",
    "0110f83b-de10-5172-a266-78bca56bf50a",
    "b5d2d8d4-3a75-51bf-945b-3444dc6b8579",
    "305891a9-b251-5dfe-91a2-c25d9212275b",
];

/// The number of LUNs of each controller.
pub const LUNS_PER_CONTROLLER: u8 = 64;

/// The `VMBus` instance GUID of `controller`, if there is such a controller.
///
/// ```
/// assert_eq!(
///     opengcs_bridge::scsi::controller_guid(1),
///     Some("0110f83b-de10-5172-a266-78bca56bf50a"),
/// );
/// assert_eq!(opengcs_bridge::scsi::controller_guid(4), None);
/// ```
#[must_use]
pub fn controller_guid(controller: u8) -> Option<&'static str> {
    CONTROLLERS.get(usize::from(controller)).copied()
}
